package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whoever can write to a store can have anything taken for checked.
func TestStoreOfOthers(t *testing.T) {
	refused := func(t *testing.T, err error, cause string) {
		t.Helper()
		format, ok := errors.AsType[*FormatError](err)
		if !ok || !strings.Contains(format.Cause, cause) || format.Hint() == "" {
			t.Errorf("error is %v", err)
		}
	}
	t.Run("writable by all", func(t *testing.T) {
		for _, mode := range []os.FileMode{0o777, 0o777 | os.ModeSticky} {
			dir := t.TempDir()
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir)
			if err == nil {
				s.Close()
			}
			refused(t, err, "everyone may write to it")
		}
	})
	t.Run("another's", func(t *testing.T) {
		if dir := os.Getenv("ARCH_TEST_STORE_OF_OTHERS"); dir != "" {
			_, err := Open(dir)
			refused(t, err, "it belongs to user")
			return
		}
		if os.Geteuid() != 0 {
			t.Skip("cannot run here: only root can give a directory away")
		}
		// The test's own directories are closed to other users.
		top, err := os.MkdirTemp("", "arch-store-others-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(top)
		dir, program := filepath.Join(top, "store"), filepath.Join(top, "test")
		data, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = errors.Join(os.Mkdir(dir, 0o755), os.Chmod(top, 0o755), os.Chown(dir, 4711, 4711), os.WriteFile(program, data, 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "-test.run=^TestStoreOfOthers$")
		cmd.Dir, cmd.Env = top, []string{"ARCH_TEST_STORE_OF_OTHERS=" + dir, "TMPDIR=/tmp"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4712, Gid: 4712}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}
