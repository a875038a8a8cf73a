// Command tool is the build tool of the scripts: small, static, and able to be guilty of one thing at a time.
//
//	tool write FILE TEXT      a file with the text, which may hold Go escapes
//	tool copy FROM TO         a copy of a file
//	tool tree DIR             a tree with an executable and a symbolic link
//	tool executable FILE      lets everyone execute it
//	tool device DEVICE FILE   writes to a device, and then to the file that it is one
//	tool link TO FILE         a symbolic link
//	tool say TEXT             text, with Go escapes, to stdout
//	tool exit STATUS          ends so
//	tool hang TEXT            says text and never ends
//	tool random FILE          a file that is never the same
//	tool record FACTOR FILE   a file that holds one property of the surroundings
package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "write":
		return write(args[0], unescape(args[1]))
	case "copy":
		data, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		return write(args[1], string(data))
	case "tree":
		return tree(args[0])
	case "executable":
		return os.Chmod(args[0], 0o755)
	case "device":
		if err := os.WriteFile(args[0], []byte("x"), 0); err != nil {
			return err
		}
		info, err := os.Stat(args[0])
		if err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return fmt.Errorf("%s is %v, not a device: %v", args[0], info.Mode(), err)
		}
		return write(args[1], "A device\n")
	case "link":
		return os.Symlink(args[0], args[1])
	case "say":
		fmt.Println(unescape(args[0]))
	case "exit":
		status, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(status)
	case "hang":
		fmt.Println(args[0])
		time.Sleep(time.Hour)
	case "random":
		return write(args[0], rand.Text())
	case "record":
		text, err := record(args[0])
		if err != nil {
			return err
		}
		return write(args[1], text)
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
	return nil
}

func unescape(text string) string {
	if s, err := strconv.Unquote(`"` + text + `"`); err == nil {
		return s
	}
	return text
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func tree(dir string) error {
	if err := write(filepath.Join(dir, "sub", "file"), "a file\n"); err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "run"), "#!/bin/sh\n"); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(dir, "run"), 0o755); err != nil {
		return err
	}
	return os.Symlink("sub/file", filepath.Join(dir, "link"))
}

// record returns what a careless build would let into its output.
func record(factor string) (string, error) {
	switch factor {
	case "time":
		return strconv.Itoa(time.Now().Year()), nil // so coarse that two builds in a row never differ by themselves
	case "path":
		return os.Getwd()
	case "uid":
		return fmt.Sprint(os.Getuid(), os.Getgid()), nil
	case "hostname":
		return os.Hostname()
	case "locale":
		return os.Getenv("LC_ALL") + os.Getenv("LANG"), nil
	case "tz":
		return os.Getenv("TZ"), nil
	case "umask":
		return umask()
	case "cpus":
		return strconv.Itoa(runtime.NumCPU()), nil
	case "order":
		d, err := os.Open("in")
		if err != nil {
			return "", err
		}
		names, err := d.Readdirnames(-1) // as the file system has them
		return strings.Join(names, "\n"), err
	}
	return "", fmt.Errorf("unknown factor %q", factor)
}

func umask() (string, error) {
	f, err := os.OpenFile("probe", os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return "", err
	}
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	return info.Mode().String(), f.Close()
}
