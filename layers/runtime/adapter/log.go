package main

import (
	"io"
	"sync"
)

const (
	largestLog = 4 * 1024 * 1024
	cut        = "\nthe log is cut here: an attempt keeps at most 4 MiB\n"
)

// attemptLog forwards an attempt's log as it is written, up to `largestLog` bytes.
type attemptLog struct {
	mutex   sync.Mutex
	to      io.Writer
	left    int
	isCut   bool
	midline bool
}

func newAttemptLog(to io.Writer) *attemptLog {
	return &attemptLog{to: to, left: largestLog}
}

func (log *attemptLog) add(piece []byte) {
	log.mutex.Lock()
	defer log.mutex.Unlock()
	if log.isCut || len(piece) == 0 {
		return
	}
	if len(piece) > log.left {
		log.isCut = true
		log.write(piece[:log.left])
		log.write([]byte(cut))
		return
	}
	log.left -= len(piece)
	log.write(piece)
}

// end ends the last line, so that the next attempt's log begins on a new line.
func (log *attemptLog) end() {
	log.mutex.Lock()
	defer log.mutex.Unlock()
	if log.midline {
		log.write([]byte("\n"))
	}
}

func (log *attemptLog) write(piece []byte) {
	if len(piece) > 0 {
		_, _ = log.to.Write(piece) // a step does not fail because the log cannot be written
		log.midline = piece[len(piece)-1] != '\n'
	}
}
