// Command tool is what the builder's tests build with: one static binary whose first argument says what it does.
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// verbs are what the tool can do.
var verbs = map[string]func(args []string) error{
	"cat":      cat,
	"leak":     leak,
	"world":    world,
	"absent":   absent,
	"mess":     mess,
	"socket":   socket,
	"image":    image,
	"spin":     spin,
	"eat":      eat,
	"flood":    flood,
	"big":      big,
	"say":      say,
	"mkdir":    func(args []string) error { return os.MkdirAll(args[0], 0o777) },
	"orphan":   orphan,
	"print":    printTo,
	"wantfile": wantFile,
}

func main() {
	do := verbs[os.Args[1]]
	if do == nil {
		fmt.Fprintf(os.Stderr, "tool: there is no verb %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := do(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "tool: %v\n", err)
		os.Exit(1)
	}
}

// write makes a file and the directories on the way to it.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o666)
}

// cat joins the files, or the files below the directories, of all arguments but the last into the last.
func cat(args []string) error {
	var all bytes.Buffer
	for _, name := range args[:len(args)-1] {
		err := filepath.WalkDir(name, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(p)
			all.Write(data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return write(args[len(args)-1], all.Bytes())
}

// leak writes one property of the surroundings to a file; several, joined by "+", only show if all differ from the standard.
func leak(args []string) error {
	what, out := args[0], args[1]
	both := strings.Split(what, "+")
	if len(both) == 1 {
		value, err := property(what)
		if err != nil {
			return err
		}
		return write(out, []byte(value))
	}
	for _, one := range both {
		value, err := property(one)
		if err != nil {
			return err
		}
		if value == args[2] || slices.Contains(args[2:], value) {
			return write(out, []byte("usual"))
		}
	}
	return write(out, []byte("unusual"))
}

func property(what string) (string, error) {
	switch what {
	case "second":
		return "made at " + time.Now().UTC().Format(time.RFC3339), nil
	case "year":
		return time.Now().UTC().Format("2006"), nil
	case "path":
		return os.Getwd()
	case "uid":
		return strconv.Itoa(os.Getuid()), nil
	case "hostname":
		return os.Hostname()
	case "locale":
		return os.Getenv("LC_ALL"), nil
	case "tz":
		return os.Getenv("TZ"), nil
	case "umask":
		return fmt.Sprintf("%04o", syscall.Umask(0)), nil
	case "cpus":
		return strconv.Itoa(runtime.NumCPU()), nil
	case "order":
		dir, err := os.Open("/build/src")
		if err != nil {
			dir, err = os.Open("/another/place/to-build-in/src")
		}
		if err != nil {
			return "", err
		}
		names, err := dir.Readdirnames(-1)
		return strings.Join(names, " "), err
	case "random":
		b := make([]byte, 5)
		rand.Read(b)
		return fmt.Sprintf("%x", b), nil
	}
	return "", fmt.Errorf("there is no property %q", what)
}

// world writes every mount point and every path outside of /proc and /dev.
func world(args []string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(info)) {
		fields := strings.Fields(line)
		lines = append(lines, "mount "+fields[4])
	}
	err = filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == "/proc" || p == "/dev" {
			return fs.SkipDir
		}
		lines = append(lines, "path "+p)
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(lines)
	return write(args[0], []byte(strings.Join(lines, "\n")+"\n"))
}

// absent fails unless each path does not exist.
func absent(args []string) error {
	for _, p := range args {
		if _, err := os.Lstat(p); !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("%s: %v, not ENOENT", p, err)
		}
	}
	return nil
}

// mess makes a tree with everything odd about it in the order of its second argument: "up" or "down".
func mess(args []string) error {
	dir := args[0]
	acts := []func() error{
		func() error { return odd(dir, "plain", 0o600, time.Unix(1, 2)) },
		func() error { return odd(dir, "tool", 0o700, time.Now()) },
		func() error { return odd(dir, "setuid", 0o4755, time.Unix(4e9, 0)) },
		func() error { return odd(dir, "sub/deep/file", 0o446, time.Unix(0, 0)) },
		func() error { return odd(dir, "sub/a name with spaces and \xff", 0o666, time.Now()) },
		func() error { return os.MkdirAll(dir+"/empty", 0o700) },
		func() error { return os.Symlink("plain", dir+"/link") },
		func() error { return os.Symlink("/nowhere/at all", dir+"/dangling") },
	}
	if args[1] == "down" {
		slices.Reverse(acts)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, act := range acts {
		if err := act(); err != nil {
			return err
		}
	}
	if err := os.Link(dir+"/plain", dir+"/hard"); err != nil {
		return err
	}
	return os.Chmod(dir+"/sub", 0o2711)
}

func odd(dir, name string, mode uint32, at time.Time) error {
	path := filepath.Join(dir, name)
	if err := write(path, []byte("content of "+name)); err != nil {
		return err
	}
	if err := syscall.Chmod(path, mode); err != nil {
		return err
	}
	return os.Chtimes(path, at, at)
}

func socket(args []string) error {
	if err := os.MkdirAll(args[0], 0o777); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[0] + "/socket", Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// image makes a small root file system.
func image(args []string) error {
	if err := write(args[0]+"/etc/motd", []byte("hello\n")); err != nil {
		return err
	}
	return write(args[0]+"/bin/app", []byte("#!app\n"))
}

// spin uses a CPU until it is killed, and says when it has begun.
func spin([]string) error {
	fmt.Println("spinning")
	for {
	}
}

// eat touches memory until it is killed.
func eat([]string) error {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
}

// flood writes to stdout without end.
func flood([]string) error {
	line := bytes.Repeat([]byte("all work and no play\n"), 1000)
	for {
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
}

// big writes a file of zeros.
func big(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return write(args[0], make([]byte, n))
}

// say writes its arguments to stdout, a line each, and fails.
func say(args []string) error {
	for _, a := range args {
		fmt.Println(a)
	}
	return errors.New("as it was told")
}

// orphan leaves a process behind that outlives it.
func orphan([]string) error {
	p, err := os.StartProcess("/tool", []string{"/tool", "spin", "orphan"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	return p.Release()
}

// printTo writes its other arguments into the file that it is given first.
func printTo(args []string) error { return write(args[0], []byte(strings.Join(args[1:], "\n"))) }

// wantFile writes to the second path if the first exists, whose name it does not take from its arguments.
func wantFile(args []string) error {
	if _, err := os.Stat("/build/src/a"); err != nil {
		return err
	}
	return write(args[0], []byte("found"))
}
