package namespace

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketMemory(t *testing.T) {
	before, err := socketMemory()
	if err != nil {
		t.Skip("cannot run here: ", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	written := 0
	for {
		n, err := unix.Write(pair[0], make([]byte, 4096))
		if err != nil {
			break
		}
		written += n
	}
	for range 100 { // the host's other sockets come and go
		if after, err := socketMemory(); err == nil && after >= before+int64(written) {
			return
		}
	}
	t.Errorf("%d bytes wait in a socket and are not seen", written)
}

// FuzzAddSockets must come to an end whatever is read.
func FuzzAddSockets(f *testing.F) {
	f.Add([]byte("\x14\x00\x00\x00\x03\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x30\x00\x00\x00\x14\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x10\x00\x05\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if sum, _ := addSockets(in); sum < 0 {
			t.Errorf("got %d", sum)
		}
	})
}
