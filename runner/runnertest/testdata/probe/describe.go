package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// describe prints who and where the probe is.
func describe([]string) {
	host, _ := os.Hostname()
	dir, _ := os.Getwd()
	groups, _ := os.Getgroups()
	umask := syscall.Umask(0)
	session, _ := unix.Getsid(0)
	fmt.Println("host:", host)
	fmt.Println("dir:", dir)
	fmt.Println("ids:", os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid())
	fmt.Println("groups:", len(groups) == 0 || len(groups) == 1 && groups[0] == os.Getgid())
	fmt.Printf("umask: %04o\n", umask)
	fmt.Println("process:", os.Getpid())
	fmt.Println("session leader:", session == os.Getpid())
	fmt.Println("cpus:", runtime.NumCPU())
	fmt.Println("descriptors:", descriptors())
	fmt.Println("processes:", processes())
	fmt.Println("capabilities:", status("Cap"))
	fmt.Println("no new privileges:", status("NoNewPrivs"))
	fmt.Println("seccomp:", status("Seccomp:"))
	fmt.Println("signals ignored or blocked:", status("SigBlk"), status("SigIgn"))
	fmt.Println("core, files:", limit(unix.RLIMIT_CORE), limit(unix.RLIMIT_NOFILE))
	fmt.Println("group:", controlGroups())
}

// limit returns the hard limit: Go raises its own soft limit of files.
func limit(resource int) string {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return word(err)
	}
	return fmt.Sprint(r.Max)
}

// descriptors lists the open ones, without the one that lists them and those of the Go runtime.
func descriptors() string {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return word(err)
	}
	names := []string{}
	for _, e := range list {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasSuffix(target, "/fd") || strings.HasPrefix(target, "anon_inode:") {
			continue
		}
		kind, _, _ := strings.Cut(target, ":")
		names = append(names, e.Name()+"="+kind)
	}
	return strings.Join(names, " ")
}

// processes names what /proc shows: "first", "self", or a number that should not be there.
func processes() string {
	list, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return word(err)
	}
	names := []string{}
	for _, p := range list {
		switch filepath.Base(p) {
		case "1":
			names = append(names, "first")
		case fmt.Sprint(os.Getpid()):
			names = append(names, "self")
		default:
			names = append(names, filepath.Base(p))
		}
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

// status returns the distinct values of the lines of /proc/self/status that start with prefix.
func status(prefix string) string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return word(err)
	}
	values := map[string]bool{}
	for _, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(line, prefix) {
			_, v, _ := strings.Cut(line, ":")
			values[strings.TrimSpace(v)] = true
		}
	}
	list := []string{}
	for v := range values {
		list = append(list, v)
	}
	sort.Strings(list)
	return strings.Join(list, " ")
}

// controlGroups returns the distinct paths of the probe's control groups.
func controlGroups() string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return word(err)
	}
	paths := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if fields := strings.SplitN(line, ":", 3); len(fields) == 3 {
			paths[fields[2]] = true
		}
	}
	list := []string{}
	for p := range paths {
		list = append(list, p)
	}
	sort.Strings(list)
	return strings.Join(list, " ")
}

func printEnv([]string) {
	for _, kv := range os.Environ() {
		fmt.Println(kv)
	}
}
