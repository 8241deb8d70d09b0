package main

import (
	"bytes"
	"encoding/json"
	"strings"
)

const tailBytes = 4096

// report is the result of a program, in the engine's format.
type report struct {
	Version    int          `json:"stepwell"`
	Exit       *int         `json:"exit"`
	Signal     *int         `json:"signal"`
	Stdout     []byte       `json:"stdout"` // base64, as encoding/json writes bytes
	Size       int64        `json:"size"`   // of the whole stdout, in bytes
	Long       bool         `json:"long"`   // Stdout is only the last line, or empty
	Tail       string       `json:"tail"`   // the last line of stderr
	TimedOut   bool         `json:"timed_out"`
	Module     *moduleEnd   `json:"module,omitempty"` // only of a WebAssembly module
	StartError *failedStart `json:"start_error"`
}

// failedStart describes why a program could not be started, and whether a retry may succeed.
type failedStart struct {
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
	Kind      string `json:"kind,omitempty"` // the error kind; empty: `start`
}

func (r report) numbered() report {
	r.Version = 1
	if r.Stdout == nil {
		r.Stdout = []byte{} // "" instead of null
	}
	return r
}

func (r report) failed() bool {
	return r.TimedOut || r.Exit == nil || *r.Exit != 0
}

// encode returns JSON. It panics for values that JSON cannot represent, which callers never pass.
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

func (t *tail) add(piece []byte) {
	if len(piece) >= tailBytes {
		t.text = append(t.text[:0], piece[len(piece)-tailBytes:]...)
		return
	}
	t.text = append(t.text, piece...)
	if extra := len(t.text) - tailBytes; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
}

// lastLine returns the last line that is not blank, or the last 500 bytes of it.
func (t *tail) lastLine() string {
	text := bytes.TrimRight(t.text, space)
	text = text[bytes.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(string(text[max(0, len(text)-500):]), "\uFFFD")
}
