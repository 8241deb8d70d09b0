package main

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestCompactJSONHasTheSameValue(t *testing.T) {
	for text, want := range map[string]string{
		`{ "a" : [ 1 , 2 ] }`:        `{"a":[1,2]}`,
		`"a b\tc"`:                   `"a b\tc"`,
		`"\u00e9\u4e16\u0041\/"`:     `"é世A/"`,
		`"\ud83d\ude00"`:             `"😀"`,
		`"\ud83d x"`:                 `"\ud83d x"`, // half a pair
		`"\ude00\ud83d"`:             `"\ude00\ud83d"`,
		`"\u0000\u001f\u0022\u005c"`: `"\u0000\u001f\u0022\u005c"`,
		`"\\u0041 \" , "`:            `"\\u0041 \" , "`,
		`1.500`:                      `1.5`,
		`0.1000000000000000055511`:   `0.1`,
		`1.0`:                        `1.0`, // a float stays one
		`100000000000000000000.0`:    `1e+20`,
		`12345678901234567890`:       `12345678901234567890`,
		`1e999`:                      `1e999`,
		`-0.0`:                       `-0.0`,
		"\xef\xbb\xbf[ true ]\r\n":   `[true]`,
	} {
		got := compact([]byte(text))
		if string(got) != want {
			t.Errorf("%s: %s", text, got)
		}
		var before, after any
		if json.Unmarshal([]byte(text), &before) == nil && json.Unmarshal(got, &after) == nil {
			if !reflect.DeepEqual(before, after) {
				t.Errorf("%s: %v became %v", text, before, after)
			}
		}
	}
}

func FuzzCompact(f *testing.F) {
	f.Add([]byte(`{"a": [1.50, "\u00e9\ud800", null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if !isJSON(text) {
			return
		}
		small := compact(text)
		var before, after any
		if !isJSON(small) || len(small) > len(text) {
			t.Fatalf("%q became %q", text, small)
		}
		if json.Unmarshal(text, &before) == nil {
			if err := json.Unmarshal(small, &after); err != nil || !reflect.DeepEqual(before, after) {
				t.Fatalf("%q became %q", text, small)
			}
		}
	})
}

func TestAnObjectHasFieldsOrNone(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: false, `{ }`: false, ` {"a":1}`: true, `[1]`: false, `"{a"`: false, "{\n}": false, "\xef\xbb\xbf{ \"a\": 1}": true,
	} {
		if hasFields([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
