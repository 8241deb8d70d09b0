package main

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	dying    = 700 * time.Millisecond // how long a killed process may take to end
	draining = 500 * time.Millisecond // how long the pipes are read after that
	round    = 500 * time.Microsecond // the pause between searches for descendants
)

// adoptOrphans makes this process the parent of every descendant whose own parent ends, in any session. So no descendant
// gets lost: prctl(2), PR_SET_CHILD_SUBREAPER.
func adoptOrphans() {
	const setChildSubreaper = 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}

// process is a running program, the leader of a new session and process group. The adapter runs one at a time.
type process struct {
	pid      int
	mutex    sync.Mutex
	isReaped bool
}

// startProcess starts a program. The error is a syscall.Errno.
func startProcess(argv []string, folder string, env []string, files []uintptr) (*process, error) {
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: folder, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	preferAsVictim(pid)
	return &process{pid: pid}, nil
}

// preferAsVictim makes the kernel kill the program, not the adapter, when memory runs out. So the adapter can report it.
func preferAsVictim(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0)
}

// kill kills the process group. After the leader is reaped it does nothing, since the id may belong to another group.
func (p *process) kill() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.isReaped {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	}
}

// wait waits for the program, then kills the process group and all other descendants. Returns false if some survive.
func (p *process) wait() (syscall.WaitStatus, bool) {
	for {
		pid := waitForAny()
		if pid == p.pid || pid < 0 {
			break
		}
		reap(pid, syscall.WNOHANG) // an orphan
	}
	p.kill()
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.isReaped = true
	status, _ := reap(p.pid, 0)
	return status, killDescendants(time.Now().Add(dying))
}

// waitForAny blocks until a child has ended, and returns the id without reaping the child: waitid(2). -1: no children.
func waitForAny() int {
	const allChildren, exited, doNotReap = 0, 4, 0x01000000
	var info [128]byte // siginfo_t; si_pid is at offset 16 on 64-bit Linux
	for {
		_, _, errno := syscall.Syscall6(
			syscall.SYS_WAITID, allChildren, 0, uintptr(unsafe.Pointer(&info)), exited|doNotReap, 0, 0)
		if errno == 0 {
			return int(int32(binary.NativeEndian.Uint32(info[16:])))
		}
		if errno != syscall.EINTR {
			return -1
		}
	}
}

// reap calls wait4(2). The returned id is 0 if no child has ended, and -1 if there are no children.
func reap(pid, options int) (status syscall.WaitStatus, reaped int) {
	for {
		reaped, err := syscall.Wait4(pid, &status, options, nil)
		if err == nil {
			return status, reaped
		}
		if err != syscall.EINTR {
			return status, -1
		}
	}
}

// killDescendants kills all processes that the program left behind; false if some survive until the deadline. Orphans
// become children of this process, so it is done when there are no children. It repeats, as processes may fork meanwhile.
func killDescendants(deadline time.Time) bool {
	for pause := time.Duration(0); ; pause = round {
		reaped := 1
		for reaped > 0 {
			_, reaped = reap(-1, syscall.WNOHANG)
		}
		if reaped < 0 {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(pause)
	}
}

// children returns the ids of this process's children. An id is not reused before the child is reaped.
func children() []int {
	var found []int
	folder, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(-1)
	self := strconv.Itoa(os.Getpid())
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		// pid (name) state ppid ...; the name may contain any character, including parentheses
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == self {
			found = append(found, pid)
		}
	}
	return found
}
