package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

var byteOrderMark = []byte("\xef\xbb\xbf")

func isJSON(text []byte) bool {
	return json.Valid(bytes.TrimPrefix(text, byteOrderMark)) && utf8.Valid(text)
}

// isContainer reports whether a text is a JSON object or array.
func isContainer(text []byte) bool {
	text = bytes.TrimLeft(text, space)
	return len(text) > 0 && (text[0] == '{' || text[0] == '[') && isJSON(text)
}

// hasFields reports whether a JSON text is an object that is not empty.
func hasFields(text []byte) bool {
	text = bytes.TrimLeft(bytes.TrimPrefix(text, byteOrderMark), space)
	if len(text) == 0 || text[0] != '{' {
		return false
	}
	return bytes.TrimLeft(text[1:], space)[0] != '}'
}

// compact returns valid JSON in the shortest form with the same value: without spaces, characters instead of escapes,
// and numbers without superfluous digits.
func compact(text []byte) []byte {
	text = bytes.TrimPrefix(text, byteOrderMark)
	to := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end := endOfString(text, i)
			to = appendString(to, text[i:end])
			i = end
		case c == '-' || c >= '0' && c <= '9':
			end := endOfNumber(text, i)
			to = appendNumber(to, text[i:end])
			i = end
		default:
			if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
				to = append(to, c)
			}
			i++
		}
	}
	return to
}

// endOfString returns the index after the closing quote of the string that begins at i.
func endOfString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func endOfNumber(text []byte, i int) int {
	for i < len(text) && bytes.IndexByte([]byte("+-.eE0123456789"), text[i]) >= 0 {
		i++
	}
	return i
}

func appendString(to, quoted []byte) []byte {
	for i := 0; i < len(quoted); {
		if quoted[i] != '\\' {
			to = append(to, quoted[i])
			i++
			continue
		}
		escape := quoted[i : i+2]
		if escape[1] != 'u' {
			if escape[1] == '/' {
				escape = escape[1:]
			}
			to = append(to, escape...)
			i += 2
			continue
		}
		size, char := escapedRune(quoted[i:])
		if char < ' ' || char == '"' || char == '\\' || char == utf8.RuneError {
			to = append(to, quoted[i:i+size]...)
		} else {
			to = utf8.AppendRune(to, char)
		}
		i += size
	}
	return to
}

// escapedRune reads \uXXXX or a surrogate pair, and returns the length and the rune; RuneError for half a pair.
func escapedRune(text []byte) (int, rune) {
	char := codeUnit(text[2:6])
	if !utf16.IsSurrogate(char) {
		return 6, char
	}
	if len(text) >= 12 && text[6] == '\\' && text[7] == 'u' {
		if whole := utf16.DecodeRune(char, codeUnit(text[8:12])); whole != utf8.RuneError {
			return 12, whole
		}
	}
	return 6, utf8.RuneError
}

func codeUnit(digits []byte) rune {
	number, _ := strconv.ParseUint(string(digits), 16, 16)
	return rune(number)
}

func appendNumber(to, digits []byte) []byte {
	if bytes.ContainsAny(digits, ".eE") {
		if number, err := strconv.ParseFloat(string(digits), 64); err == nil {
			short := strconv.AppendFloat(nil, number, 'g', -1, 64)
			if len(short) < len(digits) && bytes.ContainsAny(short, ".e") { // a float stays one
				digits = short
			}
		}
	}
	return append(to, digits...)
}
