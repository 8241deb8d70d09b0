package main

import (
	"bytes"
	"math/rand"
	"testing"
)

// collected returns the report and the log of a text that the collector receives in pieces of these sizes.
func collected(text []byte, size func() int) (report, []byte) {
	var log bytes.Buffer
	collector := stdout{log: func(piece []byte) { log.Write(piece) }}
	for rest := text; len(rest) > 0; {
		n := min(size(), len(rest))
		collector.add(rest[:n:n])
		rest = rest[n:]
	}
	success := 0
	end := report{Exit: &success}
	collector.finish(&end)
	return end, log.Bytes()
}

// lastLine is a simple reference implementation: the last line that is not blank.
func lastLine(text []byte) []byte {
	text = bytes.TrimRight(text, space)
	return text[bytes.LastIndexByte(text, '\n')+1:]
}

func TestTheLastLineOfALongTextIsFoundInAnyPieces(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	words := []string{"\n", " ", "\t\n", "\n\n \n", `{"a":1}`, `[]`, "word", "{", "\x00", "\r\n"}
	for range 60 {
		text := bytes.Repeat([]byte("filler\n"), largestText/7+random.Intn(3))
		for range random.Intn(12) {
			text = append(text, words[random.Intn(len(words))]...)
		}
		end, log := collected(text, func() int { return 1 + random.Intn(3)*random.Intn(40_000) + random.Intn(5) })
		last := lastLine(text)
		if isContainer(last) {
			if got := bytes.TrimRight(end.Stdout, space); !bytes.Equal(got, last) {
				t.Fatalf("%q is reported of a text that ends in %q", got, text[len(text)-40:])
			}
		} else if len(end.Stdout) > 0 {
			t.Fatalf("%q is reported of a text that ends in %q", end.Stdout, text[len(text)-40:])
		}
		all := append(append([]byte{}, log...), end.Stdout...)
		if !bytes.Equal(bytes.Join(bytes.Fields(all), nil), bytes.Join(bytes.Fields(text), nil)) {
			t.Fatalf("neither reported nor logged: something of a text that ends in %q", text[len(text)-40:])
		}
		if !end.Long || end.Size != int64(len(text)) {
			t.Fatalf("long %v, size %d of %d", end.Long, end.Size, len(text))
		}
	}
}

func TestALineThatIsTooLongIsLoggedAndTheNextOneReported(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 3*largestText+5)
	sizes := func() int { return 64 * 1024 }
	if end, log := collected(long, sizes); len(end.Stdout) > 0 || !bytes.Equal(log, long) {
		t.Fatalf("reported %d, logged %d", len(end.Stdout), len(log))
	}
	end, log := collected(append(long, "\n[1]"...), sizes)
	if string(end.Stdout) != "[1]" || len(log) != len(long)+1 {
		t.Fatalf("reported %q, logged %d", end.Stdout, len(log))
	}
	if end, _ := collected(append(append([]byte(`[`), long...), "]"...), sizes); len(end.Stdout) > 0 {
		t.Fatalf("reported %d", len(end.Stdout))
	}
}

func TestMemoryIsBounded(t *testing.T) {
	collector := stdout{log: func([]byte) {}}
	piece := bytes.Repeat([]byte(" {"), 32*1024)
	for range 1000 {
		collector.add(piece)
		if cap(collector.text) > 4*largestText {
			t.Fatalf("%d bytes are held", cap(collector.text))
		}
	}
}

func TestTheTailIsTheLastLineThatIsNotBlank(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"one\ntwo\n\n":      "two",
		"one\n \t\r\n":      "one",
		"\xff":              "\uFFFD",
		"no line break":     "no line break",
		"a\n" + "\x00b\r\n": "\x00b",
	} {
		end := tail{}
		for _, piece := range []byte(text) {
			end.add([]byte{piece})
		}
		if got := end.lastLine(); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	end := tail{}
	end.add(bytes.Repeat([]byte("x"), 10_000))
	if len(end.lastLine()) != 500 || len(end.text) != tailBytes {
		t.Errorf("%d of %d", len(end.lastLine()), len(end.text))
	}
}
