package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/tests/attacker"
)

// collude is one half of two jobs that try to meet, as "giver" or "taker": the giver offers a descriptor and a word by every
// meeting place there is, until file exists in the directory that both may look at, or it has waited long enough; the taker
// tries each place until then. meet is unique to the pair.
func collude(role, meet string, t attacker.Targets) int {
	deadline := time.Now().Add(colludeTime)
	places := places(meet, t)
	if role == "giver" {
		for _, p := range places {
			go p.give(deadline)
		}
		time.Sleep(time.Until(deadline) + time.Second)
		return 0
	}
	out := json.NewEncoder(os.Stdout)
	met := map[string]string{}
	last := map[string]error{}
	for time.Now().Before(deadline) && len(met) < len(places) {
		for _, p := range places {
			if met[p.name] != "" {
				continue
			}
			if what, err := p.take(); err == nil {
				met[p.name] = what
			} else {
				last[p.name] = err
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, p := range places {
		v := deniedf("%v", last[p.name])
		if what := met[p.name]; what != "" {
			v = succeeded("%s", what)
		}
		report(out, attempt{name: "collude-" + p.name, class: "collusion"}, v)
	}
	return 0
}

// colludeTime is how long the two try: they are started at about the same time.
const colludeTime = 2 * time.Second

// place is where two jobs might meet.
type place struct {
	name string
	give func(deadline time.Time)
	take func() (string, error)
}

func places(meet string, t attacker.Targets) []place {
	word := []byte("word-" + meet)
	list := []place{
		{"abstract-socket", func(d time.Time) { giveDescriptor("@"+meet, d) }, func() (string, error) { return takeDescriptor("@" + meet) }},
		{"loopback", func(d time.Time) { giveWord("tcp", "127.0.0.1:45671", word, d) }, func() (string, error) { return takeWord("tcp", "127.0.0.1:45671", word) }},
		{"loopback-v6", func(d time.Time) { giveWord("tcp", "[::1]:45671", word, d) }, func() (string, error) { return takeWord("tcp", "[::1]:45671", word) }},
		{"shared-memory", func(d time.Time) { giveSHM(word, d) }, func() (string, error) { return takeSHM(word) }},
		{"message-queue", func(d time.Time) { giveQueue(meet, d) }, func() (string, error) { return takeQueue(meet) }},
		{"user-keyring", func(d time.Time) {
			unix.AddKey("user", "word-"+meet, word, unix.KEY_SPEC_USER_KEYRING)
		}, func() (string, error) {
			_, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", "word-"+meet, 0)
			return "a key was found", err
		}},
		{"signals", func(time.Time) {}, func() (string, error) { return findHalf(meet) }},
	}
	for _, dir := range []string{"/tmp", "/dev/shm", "/var/tmp", "/run", "/run/lock", t.Scratch, "/dev/mqueue"} {
		name := filepath.Join(dir, meet)
		list = append(list, place{"directory-" + strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"), func(d time.Time) {
			os.WriteFile(name, word, 0o666)
			giveDescriptor(name+".socket", d)
		}, func() (string, error) {
			if got, err := takeDescriptor(name + ".socket"); err == nil {
				return got, nil
			}
			_, err := os.Stat(name)
			return "its file is seen", err
		}})
	}
	return list
}

// giveDescriptor passes a descriptor of its own root directory to everyone who connects (unix(7), SCM_RIGHTS).
func giveDescriptor(address string, deadline time.Time) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return
	}
	defer l.Close()
	if !strings.HasPrefix(address, "@") {
		os.Chmod(address, 0o777)
	}
	l.SetDeadline(deadline)
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return
	}
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		conn.WriteMsgUnix([]byte{1}, unix.UnixRights(root), nil)
		conn.Close()
	}
}

func takeDescriptor(address string) (string, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "it answered, without a descriptor", nil
	}
	return "a descriptor of its root directory was passed", nil
}

func giveWord(network, address string, word []byte, deadline time.Time) {
	l, err := net.Listen(network, address)
	if err != nil {
		return
	}
	defer l.Close()
	time.AfterFunc(time.Until(deadline), func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Write(word)
		conn.Close()
	}
}

func takeWord(network, address string, word []byte) (string, error) {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	got := make([]byte, len(word))
	n, err := conn.Read(got)
	if err == nil && string(got[:n]) != string(word) {
		err = errors.New("another word")
	}
	return "a word was heard", err
}

// meetKey is the System V key of the pair.
const meetKey = 0x61726368

func giveSHM(word []byte, deadline time.Time) {
	id, err := unix.SysvShmGet(meetKey, 4096, unix.IPC_CREAT|0o666)
	if err != nil {
		return
	}
	if data, err := unix.SysvShmAttach(id, 0, 0); err == nil {
		copy(data, word)
	}
	time.Sleep(time.Until(deadline))
	unix.SysvShmCtl(id, unix.IPC_RMID, nil)
}

func takeSHM(word []byte) (string, error) {
	id, err := unix.SysvShmGet(meetKey, 4096, 0)
	if err != nil {
		return "", err
	}
	data, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.SysvShmDetach(data)
	if string(data[:len(word)]) != string(word) {
		return "", errors.New("another word")
	}
	return "a segment was read", nil
}

func giveQueue(name string, deadline time.Time) {
	path := append([]byte(name), 0)
	if _, err := call(unix.SYS_MQ_OPEN, addressOf(path), unix.O_CREAT|unix.O_RDWR, 0o666, 0); err != nil {
		return
	}
	time.Sleep(time.Until(deadline))
	call(unix.SYS_MQ_UNLINK, addressOf(path))
}

func takeQueue(name string) (string, error) {
	path := append([]byte(name), 0)
	_, err := call(unix.SYS_MQ_OPEN, addressOf(path), unix.O_RDWR, 0, 0)
	return "a queue was opened", err
}

// findHalf looks for the other half among the processes, and whether it could be signalled.
func findHalf(meet string) (string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || !strings.Contains(string(line), "giver\x00"+meet) {
			continue
		}
		var pid int
		fmt.Sscan(e.Name(), &pid)
		if err := syscall.Kill(pid, 0); err == nil {
			return "process " + e.Name() + " is the other one, and can be signalled", nil
		}
	}
	return "", errors.New("the other one is not seen")
}
