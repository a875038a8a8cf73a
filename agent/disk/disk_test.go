package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"arch.network/agent/disk"
	"arch.network/agent/disk/disktest"
)

// TestReplace does the same on a real disk and in memory.
func TestReplace(t *testing.T) {
	for name, files := range map[string]disk.FS{"os": disk.OS{}, "memory": disktest.New()} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if _, err := files.Read(path, 10); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file that is not there: %v", err)
			}
			for _, text := range []string{"one", "", "three"} {
				if err := disk.Replace(files, path, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if got, err := files.Read(path, 10); err != nil || string(got) != text {
					t.Errorf("%q, %v, want %q", got, err, text)
				}
			}
			f, err := files.Append(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Write([]byte("+4"))
			if err = errors.Join(err, f.Sync(), f.Close(), files.Truncate(path, 6)); err != nil {
				t.Fatal(err)
			}
			if got, err := files.Read(path, 6); err != nil || string(got) != "three+" {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := files.Read(path, 5); err == nil {
				t.Error("a file over the limit is read")
			}
		})
	}
}

// TestReplaceFaults stops at each operation: there is the old content or the new one, and the new one if nil was returned.
func TestReplaceFaults(t *testing.T) {
	for _, fault := range []disktest.Fault{disktest.Fail, disktest.Kill, disktest.Power} {
		for at := 1; ; at++ {
			files := disktest.New()
			files.Put("/d/f", []byte("old"))
			files.At, files.Fault = at, fault
			err := disk.Replace(files, "/d/f", []byte("new content"))
			got := string(files.Restart().Get("/d/f"))
			if got != "new content" && (err == nil || got != "old") {
				t.Errorf("%v at %d: %q after %v", fault, at, got, err)
			}
			if len(files.Ops()) < at {
				break
			}
			if !errors.Is(err, disktest.ErrInjected) {
				t.Errorf("%v at %d: %v", fault, at, err)
			}
		}
	}
}

func TestNoRegularFile(t *testing.T) {
	if _, err := (disk.OS{}).Read(t.TempDir(), 10); err == nil {
		t.Error("a directory is read")
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := disk.Replace(disk.OS{}, path, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
