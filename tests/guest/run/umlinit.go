package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stageUML is the argument that makes this program PID 1 of a UML guest, until systemd takes its place.
const stageUML = "stage-uml"

// startInUML is the first process of a UML guest, on the host's file system, seen through hostfs and read-only.
func startInUML(dir string) error {
	j, err := readJob(filepath.Join(dir, "io"))
	if err != nil {
		return err
	}
	for _, file := range j.Modules {
		if err := loadModule(file); err != nil {
			return err
		}
	}
	m := &mounter{base: filepath.Join(dir, "mnt")}
	m.machine(j, filepath.Join(dir, "io"))
	if m.err != nil {
		return m.err
	}
	if err := prepare(m.root(), j.Mode); err != nil {
		return err
	}
	if err := enterRoot(m.root()); err != nil {
		return err
	}
	return becomeSystemd(j)
}

func loadModule(file string) error {
	image, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := unix.InitModule(image, ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", file, err)
	}
	return nil
}

// machine builds the root of a UML guest; systemd mounts what is missing.
func (m *mounter) machine(j job, io string) {
	m.overlay(j.Root)
	m.temporary()
	m.shows(j)
	for _, b := range j.Binds {
		m.mkdir(b.Inside, 0o755)
		m.mount("none", m.at(b.Inside), "hostfs", 0, b.Dir)
	}
	m.mkdir(ioDir, 0o755)
	m.mount("none", m.at(ioDir), "hostfs", 0, io)
}

// reportOverLines runs the command with its output on serial lines.
func reportOverLines(j job) error {
	lines := [lineCount]*os.File{}
	for i := range lines {
		line, err := openLine(i)
		if err != nil {
			return err
		}
		lines[i] = line
	}
	status := json.NewEncoder(lines[lineStatus])
	if err := status.Encode("started"); err != nil {
		return err
	}
	cmd := j.command()
	cmd.WaitDelay = time.Second // for what a command leaves behind
	// Pipes between them and the command: it must not believe that it has a terminal.
	cmd.Stdout, cmd.Stderr = &onlyWriter{lines[lineStdout]}, &onlyWriter{lines[lineStderr]}
	s := statusOf(cmd, cmd.Run())
	var drained sync.WaitGroup
	for _, line := range lines[:lineStatus] {
		drained.Go(func() { drain(line) })
	}
	drained.Wait()
	if err := status.Encode(s); err != nil {
		return err
	}
	drain(lines[lineStatus])
	return nil
}

// onlyWriter hides that a writer is a file, so that exec.Cmd makes a pipe.
type onlyWriter struct{ io.Writer }

// openLine opens a serial line that passes bytes as they are.
func openLine(i int) (*os.File, error) {
	line, err := os.OpenFile(fmt.Sprintf("/dev/ttyS%d", i), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(line.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	return line, unix.IoctlSetTermios(int(line.Fd()), unix.TCSETS, t)
}

// drain waits until the line has passed on all that was written to it (tcdrain(3)).
func drain(line *os.File) { unix.IoctlSetInt(int(line.Fd()), unix.TCSBRK, 1) }
