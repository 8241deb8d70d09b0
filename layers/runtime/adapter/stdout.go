package main

import "bytes"

const (
	largestText   = 1024 * 1024 // of a text that may be an output: JSON shrinks by its spaces and escapes
	largestStdout = 270 * 1024  // of what is reported: an output, and a little more, so that it can be called too large
	largestOutput = 256 * 1024
	space         = " \t\n\r\v\f"
)

// stdout collects what a program prints, without holding more of it than an output can be: memory is bounded, and
// everything ends up in the report or in the log.
type stdout struct {
	text     []byte
	size     int64
	isLong   bool // text is but the last line that is not blank, with the line break behind it if there was one
	isBroken bool // of that line, the beginning is gone
	log      func([]byte)
}

func (its *stdout) add(piece []byte) {
	its.size += int64(len(piece))
	if its.isLong {
		its.addToLastLine(piece)
		return
	}
	its.text = append(its.text, piece...)
	if len(its.text) > largestText {
		its.reduce()
	}
}

// reduce forgets all but the last line.
func (its *stdout) reduce() {
	text := its.text
	its.text, its.isLong = nil, true
	its.addToLastLine(text)
}

func (its *stdout) addToLastLine(piece []byte) {
	isComplete := bytes.HasSuffix(its.text, []byte("\n"))
	printed := bytes.TrimRight(piece, space)
	if len(printed) == 0 && isComplete {
		return // blank lines behind it
	}
	start := bytes.LastIndexByte(printed, '\n') + 1
	if start > 0 || isComplete {
		its.flush()
		its.log(piece[:start])
		its.isBroken = false
	}
	piece, printed = piece[start:], printed[start:]
	if end := bytes.IndexByte(piece[len(printed):], '\n'); end >= 0 {
		piece = piece[:len(printed)+end+1]
	}
	its.text = append(its.text, piece...)
	if len(its.text) > largestText {
		its.flush()
		its.isBroken = true
	}
}

func (its *stdout) flush() {
	its.log(its.text)
	its.text = its.text[:0]
}

// finish fills in the report; what is in no output goes to the log.
func (its *stdout) finish(report *report) {
	report.Size = its.size
	if !its.isLong {
		if text, fits := shrink(its.text, largestStdout); fits {
			report.Stdout = text
			its.log(unsaid(its.text, *report))
			return
		}
		its.reduce()
	}
	report.Long = true
	if !its.isBroken && isContainer(its.text) {
		if line, fits := shrink(its.text, largestStdout); fits {
			report.Stdout = line
			its.log(unsaid(its.text, *report))
			return
		}
	}
	its.flush()
}

// shrink returns a text, or, if it is JSON and too large, its compact form.
func shrink(text []byte, most int) ([]byte, bool) {
	if len(text) > most && isJSON(text) {
		text = compact(text)
	}
	return text, len(text) <= most
}

// unsaid is what of a text is neither the output nor kept with the error, by the same rules by which the engine will
// read it.
func unsaid(text []byte, its report) []byte {
	if its.TimedOut {
		return text
	}
	if isJSON(text) {
		return rest(nil, text, its)
	}
	start := bytes.LastIndexByte(bytes.TrimRight(text, space), '\n') + 1
	if start > 0 && isContainer(text[start:]) {
		return rest(text[:start], text[start:], its)
	}
	if !its.failed() && len(text)+len(`{"body":""}`) <= largestOutput {
		return nil
	}
	return text
}

// rest is what remains if `value` is kept: after a failure, only an object with fields is.
func rest(before, value []byte, its report) []byte {
	_, fits := shrink(value, largestOutput)
	if fits && (!its.failed() || hasFields(value)) {
		return before
	}
	return append(append([]byte{}, before...), value...)
}
