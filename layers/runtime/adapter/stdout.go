package main

import "bytes"

const (
	largestText   = 1024 * 1024 // bytes of a text that may be an output; more than an output, as JSON can be compacted
	largestStdout = 270 * 1024  // bytes in a report; more than an output, so that the engine sees that it is too large
	largestOutput = 256 * 1024
	space         = " \t\n\r\v\f"
)

// stdout collects a program's output in bounded memory. Everything ends up in the report or in the log.
type stdout struct {
	text     []byte
	size     int64
	isLong   bool // text is only the last line that is not blank, with the line break if there was one
	isBroken bool // the beginning of that line is missing
	log      func([]byte)
}

func (s *stdout) add(piece []byte) {
	s.size += int64(len(piece))
	if s.isLong {
		s.addToLastLine(piece)
		return
	}
	s.text = append(s.text, piece...)
	if len(s.text) > largestText {
		s.reduce()
	}
}

// reduce keeps only the last line; the rest goes to the log.
func (s *stdout) reduce() {
	text := s.text
	s.text, s.isLong = nil, true
	s.addToLastLine(text)
}

func (s *stdout) addToLastLine(piece []byte) {
	isComplete := bytes.HasSuffix(s.text, []byte("\n"))
	printed := bytes.TrimRight(piece, space)
	if len(printed) == 0 && isComplete {
		return // blank lines after the last line
	}
	start := bytes.LastIndexByte(printed, '\n') + 1
	if start > 0 || isComplete {
		s.flush()
		s.log(piece[:start])
		s.isBroken = false
	}
	piece, printed = piece[start:], printed[start:]
	if end := bytes.IndexByte(piece[len(printed):], '\n'); end >= 0 {
		piece = piece[:len(printed)+end+1]
	}
	s.text = append(s.text, piece...)
	if len(s.text) > largestText {
		s.flush()
		s.isBroken = true
	}
}

func (s *stdout) flush() {
	s.log(s.text)
	s.text = s.text[:0]
}

// finish fills in the report. Text that is not part of an output goes to the log.
func (s *stdout) finish(report *report) {
	report.Size = s.size
	if !s.isLong {
		if text, fits := shrink(s.text, largestStdout); fits {
			report.Stdout = text
			s.log(unreported(s.text, *report))
			return
		}
		s.reduce()
	}
	report.Long = true
	if !s.isBroken && isContainer(s.text) {
		if line, fits := shrink(s.text, largestStdout); fits {
			report.Stdout = line
			s.log(unreported(s.text, *report))
			return
		}
	}
	s.flush()
}

// shrink returns the text, compacted if it is JSON and too large, and whether it fits.
func shrink(text []byte, most int) ([]byte, bool) {
	if len(text) > most && isJSON(text) {
		text = compact(text)
	}
	return text, len(text) <= most
}

// unreported returns the part of a text that is neither the output nor stored with the error. It follows the rules by
// which the engine reads the report.
func unreported(text []byte, r report) []byte {
	if r.TimedOut {
		return text
	}
	if isJSON(text) {
		return rest(nil, text, r)
	}
	start := bytes.LastIndexByte(bytes.TrimRight(text, space), '\n') + 1
	if start > 0 && isContainer(text[start:]) {
		return rest(text[:start], text[start:], r)
	}
	if !r.failed() && len(text)+len(`{"body":""}`) <= largestOutput {
		return nil
	}
	return text
}

// rest returns the part that remains if `value` is stored. After a failure, only an object with fields is stored.
func rest(before, value []byte, r report) []byte {
	_, fits := shrink(value, largestOutput)
	if fits && (!r.failed() || hasFields(value)) {
		return before
	}
	return append(append([]byte{}, before...), value...)
}
