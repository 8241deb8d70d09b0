package main

import "testing"

func TestAProgramDoesNotSeeItsToken(t *testing.T) {
	for input, want := range map[string]string{
		`{"ctx":{"attempt":1,"token":"00ff"}}`:                 `{"ctx":{"attempt":1}}`,
		`{"event":{"data":{"a":1,"token":"x"}},"ctx":{"a":1}}`: `{"event":{"data":{"a":1,"token":"x"}},"ctx":{"a":1}}`,
		`{"data":{"a":1,"token":"x"}}`:                         `{"data":{"a":1}}`, // the engine never sends this
		`{"ctx":{"a":1,"token":"x\"}}"}}`:                      `{"ctx":{"a":1,"token":"x\"}}"}}`,
		`,"token":"`:                                           `,"token":"`,
		``:                                                     ``,
	} {
		if got := string(withoutToken([]byte(input))); got != want {
			t.Errorf("%s: %s", input, got)
		}
	}
}
