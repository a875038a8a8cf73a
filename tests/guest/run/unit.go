package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// unitName is the unit in which the command runs, and the one that systemd is started for.
const unitName = "guest.service"

// unitText is that unit. When it ends, in whichever way, so does systemd.
const unitText = `[Unit]
Requires=dbus.socket basic.target
After=dbus.socket basic.target
SuccessAction=%[1]s
FailureAction=%[1]s
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=` + ioDir + `/run ` + stageUnit + ` ` + ioDir + `
Delegate=yes
LimitCORE=0
`

// masked are services that would change the host, or wait for what a guest lacks, or take long.
var masked = []string{
	"systemd-remount-fs", "systemd-sysctl", "systemd-modules-load", "systemd-random-seed", "systemd-udevd", "systemd-udev-trigger",
	"systemd-timesyncd", "systemd-update-utmp", "systemd-hwdb-update", "systemd-pstore", "kmod-static-nodes", "e2scrub_reap", "ldconfig",
	"systemd-firstboot", "systemd-journal-catalog-update", "systemd-update-done", "systemd-journal-flush", "systemd-machine-id-commit",
	"systemd-binfmt",
}

// machineID is that of every guest; the machine's own stays outside.
const machineID = "00000000000000000000000061726368\n"

// prepare writes what systemd needs into the root of a guest whose /run is mounted.
func prepare(root, mode string) error {
	for _, name := range []string{".dockerenv", "etc/machine-id", "etc/fstab"} { // the first would make systemd believe that it is in Docker
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(machineID), 0o444); err != nil {
		return err
	}
	units := filepath.Join(root, "run/systemd/system")
	if err := os.MkdirAll(units, 0o755); err != nil {
		return err
	}
	end := "exit-force"
	if mode == modeUML {
		end = "poweroff-immediate"
	}
	if err := os.WriteFile(filepath.Join(units, unitName), fmt.Appendf(nil, unitText, end), 0o644); err != nil {
		return err
	}
	for _, name := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(units, name+".service")); err != nil {
			return err
		}
	}
	return nil
}

// stageUnit is the argument that makes this program the main process of the unit.
const stageUnit = "stage-unit"

// socketName is the launcher's socket in the io directory, for guests in namespaces.
const socketName = "socket"

// runUnit runs the command and tells the launcher how it ended.
func runUnit(dir string) int {
	if err := reportCommand(dir); err != nil {
		fmt.Fprintf(os.Stderr, "run: %v\n", err)
		return exitInternal
	}
	return 0
}

func reportCommand(dir string) error {
	j, err := readJob(dir)
	if err != nil {
		return err
	}
	if j.Mode == modeUML {
		return reportOverLines(j)
	}
	return reportOverSocket(j, filepath.Join(dir, socketName))
}

// reportOverSocket takes the standard descriptors from the launcher: the command writes where the launcher would.
func reportOverSocket(j job, socket string) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	files, err := receiveFiles(conn)
	if err != nil {
		return fmt.Errorf("receive descriptors: %w", err)
	}
	cmd := j.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	return json.NewEncoder(conn).Encode(statusOf(cmd, cmd.Run()))
}

func (j job) command() *exec.Cmd {
	cmd := &exec.Cmd{Path: j.Argv[0], Args: j.Argv, Dir: j.Dir, Env: j.Env}
	for _, e := range j.Env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	if path, err := exec.LookPath(j.Argv[0]); err == nil {
		cmd.Path = path
	}
	return cmd
}

// receiveFiles takes the three descriptors of one message.
func receiveFiles(conn *net.UnixConn) ([3]*os.File, error) {
	var files [3]*os.File
	oob := make([]byte, unix.CmsgSpace(4*len(files)))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return files, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return files, fmt.Errorf("%d control messages: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(files) {
		return files, fmt.Errorf("%d descriptors: %v", len(fds), err)
	}
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), []string{"stdin", "stdout", "stderr"}[i])
	}
	return files, nil
}
