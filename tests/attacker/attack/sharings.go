package main

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// sharings try to reach what processes share beside files.
func sharings() []attempt {
	return []attempt{
		{"shared-memory", "sharing", func(t attacker.Targets) verdict {
			if t.SHM == 0 {
				return notApplicable("no target")
			}
			id, err := unix.SysvShmGet(t.SHM, 0, 0)
			if err != nil {
				return denied(err)
			}
			data, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
			if err == nil && !bytes.Contains(data, []byte(t.Token)) {
				err = errors.New("it is another segment")
			}
			return judge(err, "the segment was read")
		}},
		{"message-queue", "sharing", func(t attacker.Targets) verdict {
			if t.Queue == "" {
				return notApplicable("no target")
			}
			name := append([]byte(t.Queue), 0)
			return judgeCall(unix.SYS_MQ_OPEN, addressOf(name), unix.O_RDWR, 0, 0)
		}},
		{"read-key", "sharing", func(t attacker.Targets) verdict {
			if t.Key == "" {
				return notApplicable("no target")
			}
			id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", t.Key, 0)
			if err != nil {
				return denied(err)
			}
			data := make([]byte, 256)
			n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, data, 0)
			if err == nil && !bytes.Contains(data[:n], []byte(t.Token)) {
				err = errors.New("it is another key")
			}
			return judge(err, "the key was read")
		}},
		{"list-keys", "sharing", func(t attacker.Targets) verdict {
			if t.Key == "" {
				return notApplicable("no target")
			}
			return readContaining("/proc/keys", t.Key)
		}},
		{"shared-memory-directory", "sharing", func(t attacker.Targets) verdict {
			if t.DropOff == "" {
				return notApplicable("no target")
			}
			entries, err := os.ReadDir("/dev/shm")
			for _, e := range entries {
				if bytes.Contains([]byte(e.Name()), []byte(t.Token)) {
					return succeeded("/dev/shm/%s is seen", e.Name())
				}
			}
			return deniedf("%d entries: %v", len(entries), err)
		}},
	}
}
