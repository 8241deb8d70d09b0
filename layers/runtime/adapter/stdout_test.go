package main

import (
	"bytes"
	"math/rand"
	"testing"
)

// collected runs a text through a collector, in pieces of these sizes; what it reports, and what it logs.
func collected(text []byte, size func() int) (report, []byte) {
	var log bytes.Buffer
	its := stdout{log: func(piece []byte) { log.Write(piece) }}
	for rest := text; len(rest) > 0; {
		n := min(size(), len(rest))
		its.add(rest[:n:n])
		rest = rest[n:]
	}
	success := 0
	end := report{Exit: &success}
	its.finish(&end)
	return end, log.Bytes()
}

// lastLine is what a long text must come to, said in the plainest way.
func lastLine(text []byte) []byte {
	text = bytes.TrimRight(text, space)
	return text[bytes.LastIndexByte(text, '\n')+1:]
}

func TestTheLastLineOfALongTextIsFoundHoweverItComes(t *testing.T) {
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

func TestALineThatIsTooLongIsNoOutputButTheNextOneIs(t *testing.T) {
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
	its := stdout{log: func([]byte) {}}
	piece := bytes.Repeat([]byte(" {"), 32*1024)
	for range 1000 {
		its.add(piece)
		if cap(its.text) > 4*largestText {
			t.Fatalf("%d bytes are held", cap(its.text))
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
		its := tail{}
		for _, piece := range []byte(text) {
			its.add([]byte{piece})
		}
		if got := its.lastLine(); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	its := tail{}
	its.add(bytes.Repeat([]byte("x"), 10_000))
	if len(its.lastLine()) != 500 || len(its.text) != tailBytes {
		t.Errorf("%d of %d", len(its.lastLine()), len(its.text))
	}
}
