package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	largestArgument = 96 * 1024 // Linux takes 128 KiB for one
	piece           = 64 * 1024
)

// attempt is a program to be run once.
type attempt struct {
	command []string
	folder  string // the step's code, and the working directory; empty: where we are
	env     environment
	input   []byte
	limit   time.Duration
	stop    <-chan os.Signal // nil: nothing stops it early
}

// ending is how it went.
type ending struct {
	report    report
	stopped   bool
	survivors bool // a process is still there, and cannot be killed
	scratch   *scratch
}

// clean removes what the attempt left; it is called once the report is on its way, which does not have to wait for it.
func (its ending) clean(deadline time.Time) {
	if its.scratch == nil {
		return
	}
	if !deadline.IsZero() {
		deadline = deadline.Add(-cleaning)
	}
	its.scratch.removeBefore(deadline)
}

// run runs the program to its end; `to` gets its log.
func (its attempt) run(to io.Writer) ending {
	log := newAttemptLog(to)
	defer log.end()
	program, err := locate(its.command[0], its.env["PATH"], its.folder)
	if err != nil {
		return ending{report: report{StartError: &failedStart{err.Error(), false, ""}}}
	}
	files, err := newScratch(its.input)
	if err != nil {
		return ending{report: report{StartError: whyNot(err)}}
	}
	running, err := its.start(program, files, log)
	if err != nil {
		return ending{report: report{StartError: whyNot(err)}, scratch: files}
	}
	end := running.end(its.limit, its.stop)
	end.scratch = files
	return end
}

func (its attempt) start(program string, files *scratch, log *attemptLog) (*execution, error) {
	input, err := os.Open(files.input)
	if err != nil {
		return nil, err
	}
	defer input.Close()
	var readers, writers [2]int
	for i := range readers {
		if readers[i], writers[i], err = pipe(); err != nil {
			return nil, err
		}
		defer syscall.Close(writers[i])
	}
	env := environment{"HOME": files.tmp}.with(its.env)
	env["TMPDIR"], env["STEPWELL_INPUT"] = files.tmp, files.input
	argv := append(append([]string{program}, its.command[1:]...), argument(its.input, files.input))
	handles := []uintptr{input.Fd(), uintptr(writers[0]), uintptr(writers[1])}
	process, err := startProcess(argv, its.folder, env.list(), handles)
	if err != nil {
		syscall.Close(readers[0])
		syscall.Close(readers[1])
		return nil, err
	}
	running := &execution{process: process, stdout: stdout{log: log.add}, log: log}
	running.read(readers)
	return running, nil
}

// pipe makes a pipe that no other program inherits, and whose reader can be given a deadline.
func pipe() (reader, writer int, err error) {
	var both [2]int
	if err = syscall.Pipe2(both[:], syscall.O_CLOEXEC); err == nil {
		err = syscall.SetNonblock(both[0], true)
	}
	return both[0], both[1], err
}

// --- while it runs ---------------------------------------------------------------------------------------------------

type execution struct {
	process *process
	pipes   [2]*os.File
	readers sync.WaitGroup
	stdout  stdout
	tail    tail
	log     *attemptLog
}

func (its *execution) read(readers [2]int) {
	for i, receive := range []func([]byte){its.stdout.add, its.receiveError} {
		its.pipes[i] = os.NewFile(uintptr(readers[i]), "pipe")
		its.readers.Add(1)
		go its.receive(its.pipes[i], receive)
	}
}

func (its *execution) receive(from *os.File, receive func([]byte)) {
	defer its.readers.Done()
	buffer := make([]byte, piece)
	for {
		size, err := from.Read(buffer)
		receive(buffer[:size])
		if err != nil {
			return
		}
	}
}

func (its *execution) receiveError(piece []byte) {
	its.tail.add(piece)
	its.log.add(piece)
}

// end waits for the program, kills it after `limit` or at `stop`, and says how it went.
func (its *execution) end(limit time.Duration, stop <-chan os.Signal) ending {
	type exit struct {
		status syscall.WaitStatus
		isGone bool
	}
	exited := make(chan exit, 1)
	go func() {
		status, isGone := its.process.wait()
		exited <- exit{status, isGone}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var how exit
	var end ending
	select {
	case how = <-exited:
	case <-timer.C:
		end.report.TimedOut = true
	case <-stop:
		end.stopped = true
	}
	if end.report.TimedOut || end.stopped {
		its.process.kill()
		select {
		case how = <-exited:
		case <-time.After(dying):
		}
	}
	end.survivors = !how.isGone
	its.drain(end.survivors)
	its.judge(how.status, &end.report)
	return end
}

// drain reads what is left in the pipes, to their end; if somebody is left who may hold them, not for long.
func (its *execution) drain(survivors bool) {
	for _, pipe := range its.pipes {
		if survivors {
			_ = pipe.SetReadDeadline(time.Now().Add(draining))
		}
	}
	its.readers.Wait()
	for _, pipe := range its.pipes {
		_ = pipe.Close()
	}
}

func (its *execution) judge(status syscall.WaitStatus, report *report) {
	if status.Signaled() {
		signal := int(status.Signal())
		report.Signal = &signal
	} else {
		code := status.ExitStatus()
		report.Exit = &code
	}
	report.Tail = its.tail.lastLine()
	its.stdout.finish(report)
}

// --- what to run -----------------------------------------------------------------------------------------------------

// locate finds the program as a shell in the step's folder would; the error says what is wrong.
func locate(name, path, folder string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(name) {
			file = filepath.Join(folder, name)
		}
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
			return "", fmt.Errorf("there is no file %s in the step's code; correct the command", name)
		}
		if !isExecutable(file) {
			return "", fmt.Errorf("%s is not executable; run chmod +x on it", name)
		}
		return name, nil
	}
	for _, place := range filepath.SplitList(path) {
		if file := filepath.Join(place, name); isExecutable(file) {
			return file, nil
		}
	}
	here := ""
	if info, err := os.Stat(filepath.Join(folder, name)); folder != "" && err == nil && info.Mode().IsRegular() {
		here = fmt.Sprintf(", or write ./%s for the one in the step's folder", name)
	}
	return "", fmt.Errorf("found no program '%s' on PATH (%s); install it%s", name, path, here)
}

func isExecutable(file string) bool {
	const executable = 1
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && syscall.Access(file, executable) == nil
}

// argument is the input as the last argument.
func argument(input []byte, file string) string {
	if len(input) <= largestArgument {
		return string(input)
	}
	return "@" + file
}

// whyNot explains why the system did not start a program.
func whyNot(err error) *failedStart {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return &failedStart{"cannot be started: " + err.Error(), true, ""}
	}
	cure, retryable := "", false
	switch errno {
	case syscall.ENOEXEC:
		cure = "; a script needs a first line such as #!/bin/sh"
	case syscall.ENOENT:
		cure = "; does its first line (#!) name a program that is here?"
	case syscall.E2BIG:
		cure = "; its arguments or environment variables are too large"
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC:
		retryable = true
	}
	return &failedStart{"cannot be started: " + errno.Error() + cure, retryable, ""}
}
