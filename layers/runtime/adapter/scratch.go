package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// scratch is an attempt's own folder: its input, and its TMPDIR.
type scratch struct {
	folder, input, tmp string
}

// newScratch makes one where something can be written: an image may have no /tmp, and no user that may make one.
func newScratch(input []byte) (*scratch, error) {
	var err error
	for _, place := range places() {
		var its *scratch
		if its, err = newScratchIn(place, input); err == nil {
			return its, nil
		}
	}
	return nil, err
}

func places() []string {
	all := []string{os.TempDir()}
	if self, err := os.Executable(); err == nil {
		all = append(all, filepath.Join(filepath.Dir(self), sharedTmp))
	}
	return append(all, "/tmp", "/dev/shm")
}

func newScratchIn(place string, input []byte) (*scratch, error) {
	folder, err := os.MkdirTemp(place, "stepwell-")
	if err != nil {
		return nil, err
	}
	its := &scratch{folder, folder + "/input.json", folder + "/tmp"}
	if err = os.WriteFile(its.input, input, 0o644); err == nil {
		err = os.Mkdir(its.tmp, 0o700)
	}
	if err != nil {
		its.remove()
		return nil, err
	}
	return its, nil
}

// remove removes the folder, also what was made unreadable in it. Links are not followed.
func (its *scratch) remove() {
	if os.RemoveAll(its.folder) == nil {
		return
	}
	_ = filepath.WalkDir(its.folder, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && err == nil {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(its.folder)
}

// empty makes the TMPDIR anew, for the next attempt in the same process.
func (its *scratch) empty() {
	its.remove()
	_ = os.MkdirAll(its.tmp, 0o700)
}

// removeBefore removes it, in the background what takes longer. A zero deadline is none.
func (its *scratch) removeBefore(deadline time.Time) {
	done := make(chan struct{})
	go func() {
		its.remove()
		close(done)
	}()
	if deadline.IsZero() {
		<-done
		return
	}
	select {
	case <-done:
	case <-time.After(time.Until(deadline)):
	}
}
