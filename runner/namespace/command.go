package namespace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// notFoundError says that a command's program, or its directory, does not exist in the confinement.
type notFoundError struct{ what string }

func (e *notFoundError) Error() string { return e.what }

// start forks c from the calling thread, which must be locked and restricted, with stdin empty and the thread's own
// stdout and stderr. The error is a *notFoundError, or an errno of execve for a program that cannot be executed.
func start(c runner.Command, stdin int) (pid int, err error) {
	program, dir, err := find(c)
	if err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec(program, c.Argv, &syscall.ProcAttr{
		Dir:   dir,
		Env:   c.Env,
		Files: []uintptr{uintptr(stdin), 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	return pid, describeExec(program, err)
}

// find returns the file to execute for c, and the directory in which to do so.
func find(c runner.Command) (program, dir string, err error) {
	dir = c.Dir
	if dir == "" {
		dir = "/"
	}
	if err := accessDir(dir); err != nil {
		return "", "", err
	}
	program, err = lookPath(c.Argv[0], dir, searchPath(c.Env))
	return program, dir, err
}

// describeExec says what err, of execve, means for program.
func describeExec(program string, err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return &notFoundError{fmt.Sprintf("program %q exists, but its interpreter does not", program)}
	}
	if err != nil {
		return fmt.Errorf("execute %q: %w", program, err)
	}
	return nil
}

func accessDir(dir string) error {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return &notFoundError{fmt.Sprintf("working directory %q: %v", dir, err)}
	}
	return nil
}

// searchPath returns the value of PATH in env; the last one counts, as it does for a shell.
func searchPath(env []string) string {
	found := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			found = v
		}
	}
	return found
}

// lookPath finds the program name as execvp(3) does, seen from dir.
func lookPath(name, dir, search string) (string, error) {
	if strings.Contains(name, "/") {
		full := name
		if !path.IsAbs(name) {
			full = path.Join(dir, name)
		}
		if !exists(full) {
			return "", &notFoundError{fmt.Sprintf("program %q does not exist", name)}
		}
		return name, nil
	}
	for place := range strings.SplitSeq(search, ":") {
		if !path.IsAbs(place) {
			continue // "." and the empty element would make the working directory part of the search
		}
		full := path.Join(place, name)
		if executable(full) {
			return full, nil
		}
	}
	return "", &notFoundError{fmt.Sprintf("program %q is not in PATH %q", name, search)}
}

func exists(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil
}

func executable(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(name, unix.X_OK) == nil
}

// reap waits until the command pid is gone, and buries every other process that ends meanwhile.
func reap(pid int) (syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("wait4", err)
		}
		if got == pid && (ws.Exited() || ws.Signaled()) {
			return ws, nil
		}
	}
}
