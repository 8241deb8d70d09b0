package main

import (
	"bytes"
	"encoding/json"
	"strings"
)

const tailBytes = 4096

// report is what a program said, in the words of the engine.
type report struct {
	Version    int          `json:"stepwell"`
	Exit       *int         `json:"exit"`
	Signal     *int         `json:"signal"`
	Stdout     []byte       `json:"stdout"` // base64, as encoding/json has bytes
	Size       int64        `json:"size"`   // of stdout in all
	Long       bool         `json:"long"`   // stdout is but the last line, or empty
	Tail       string       `json:"tail"`   // the last line of stderr
	TimedOut   bool         `json:"timed_out"`
	StartError *failedStart `json:"start_error"`
}

// failedStart says why a program could not be started, and whether it may be another time.
type failedStart struct {
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
	Kind      string `json:"kind,omitempty"` // of the error; empty: it could not be started
}

func (its report) numbered() report {
	its.Version = 1
	if its.Stdout == nil {
		its.Stdout = []byte{} // "" instead of null
	}
	return its
}

func (its report) failed() bool {
	return its.TimedOut || its.Exit == nil || *its.Exit != 0
}

// encode writes JSON; what is given to it always can be.
func encode(value any) []byte {
	var to bytes.Buffer
	encoder := json.NewEncoder(&to)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(to.Bytes(), []byte("\n"))
}

// tail keeps the end of a stream.
type tail struct{ text []byte }

func (its *tail) add(piece []byte) {
	if len(piece) >= tailBytes {
		its.text = append(its.text[:0], piece[len(piece)-tailBytes:]...)
		return
	}
	its.text = append(its.text, piece...)
	if extra := len(its.text) - tailBytes; extra > 0 {
		its.text = append(its.text[:0], its.text[extra:]...)
	}
}

// lastLine is the last line that is not blank, at most 500 bytes of it.
func (its *tail) lastLine() string {
	text := bytes.TrimRight(its.text, space)
	text = text[bytes.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(string(text[max(0, len(text)-500):]), "\uFFFD")
}
