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
	dying    = 700 * time.Millisecond // how long a killed process may take to be gone
	draining = 500 * time.Millisecond // how long its pipes are read after that
	round    = 500 * time.Microsecond
)

// adoptOrphans makes this process the parent of every descendant whose own parent ends, so that none gets lost, whatever
// session it moved to: prctl(2), PR_SET_CHILD_SUBREAPER.
func adoptOrphans() {
	const setChildSubreaper = 36
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}

// process is a running program, the leader of a session and group of its own. The adapter has one at a time.
type process struct {
	pid      int
	mutex    sync.Mutex
	isReaped bool
}

// startProcess starts a program; its error is a syscall.Errno.
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

// preferAsVictim: when memory runs out the kernel ends the program, not the adapter, which then can tell.
func preferAsVictim(pid int) {
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0)
}

// kill ends the group. Until its leader is reaped the number is that group's, after that it may be another's.
func (its *process) kill() {
	its.mutex.Lock()
	defer its.mutex.Unlock()
	if !its.isReaped {
		_ = syscall.Kill(-its.pid, syscall.SIGKILL)
	}
}

// wait waits for the program, then ends its group and all other descendants. False if some cannot be ended.
func (its *process) wait() (syscall.WaitStatus, bool) {
	for {
		pid := waitForAny()
		if pid == its.pid || pid < 0 {
			break
		}
		reap(pid, syscall.WNOHANG) // an orphan
	}
	its.kill()
	its.mutex.Lock()
	defer its.mutex.Unlock()
	its.isReaped = true
	status, _ := reap(its.pid, 0)
	return status, killDescendants(time.Now().Add(dying))
}

// waitForAny blocks until a child has ended, and leaves it unreaped: waitid(2). -1: there is none.
func waitForAny() int {
	const allChildren, exited, doNotReap = 0, 4, 0x01000000
	var info [128]byte // siginfo_t; its si_pid stands at 16 on 64-bit Linux
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

// reap calls wait4(2): the child's number is 0 if none has ended, and -1 if there is none at all.
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

// killDescendants ends what the program left behind. Orphans become our children, so no children means that nothing is
// left; a process may fork while it is looked for, hence the rounds.
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

// children reads who our children are. Their numbers stay theirs until we reap them.
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
		// pid (name) state ppid ...; the name may hold anything, parentheses too
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == self {
			found = append(found, pid)
		}
	}
	return found
}
