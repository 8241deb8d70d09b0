package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// scratch is an attempt's temporary folder, with the input and TMPDIR.
type scratch struct {
	folder, input, tmp string
}

// newScratch creates the folder in the first writable place: an image may have no /tmp, and its user may not create it.
func newScratch(input []byte) (*scratch, error) {
	var err error
	for _, place := range scratchFolders() {
		var made *scratch
		if made, err = newScratchIn(place, input); err == nil {
			return made, nil
		}
	}
	return nil, err
}

func scratchFolders() []string {
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
	made := &scratch{folder, folder + "/input.json", folder + "/tmp"}
	if err = os.WriteFile(made.input, input, 0o644); err == nil {
		err = os.Mkdir(made.tmp, 0o700)
	}
	if err != nil {
		made.remove()
		return nil, err
	}
	return made, nil
}

// remove removes the folder, including folders without permissions. Links are not followed.
func (s *scratch) remove() {
	if os.RemoveAll(s.folder) == nil {
		return
	}
	_ = filepath.WalkDir(s.folder, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && err == nil {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(s.folder)
}

// empty empties TMPDIR, for the next attempt in the same process.
func (s *scratch) empty() {
	s.remove()
	_ = os.MkdirAll(s.tmp, 0o700)
}

// removeBefore removes the folder. After the deadline, removal goes on in the background. Zero: no deadline.
func (s *scratch) removeBefore(deadline time.Time) {
	done := make(chan struct{})
	go func() {
		s.remove()
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
