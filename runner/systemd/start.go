package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// start starts the unit and sends the order.
func (e *execution) start(ctx context.Context) error {
	path := e.options.socket(e.spec.Name)
	draft := path + "-" + randomName() // until the unit is ours: another one of this name may have the other
	listener, err := listenAt(draft)
	if err != nil {
		return &runner.SetupError{Act: "make control socket", Err: err}
	}
	defer os.Remove(draft)
	defer listener.Close()
	properties := toBus(e.options.unit(e.spec, e.layout))
	properties = append(properties, descriptor("StandardInputFileDescriptor", listener.Fd()))
	starting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*busTimeout)
	defer cancel()
	if err := e.link.start(starting, e.unit, properties); err != nil {
		return e.startError(starting, err)
	}
	if err := os.Rename(draft, path); err != nil {
		e.dismiss()
		return &runner.SetupError{Act: "make control socket", Err: err}
	}
	return e.greet()
}

// startError explains why a unit did not start, and removes it.
func (e *execution) startError(ctx context.Context, err error) error {
	s := &runner.SetupError{Act: "start unit " + e.unit, Err: err}
	if isUnitExists(err) {
		s.Err, s.Cure = errors.New("an execution of this name runs already"), "wait for it, or choose another name"
		return s
	}
	if _, ok := errors.AsType[*jobError](err); !ok {
		e.dismiss()
		s.Cure = cureBus
		return s
	}
	p, perr := e.link.GetUnitTypePropertiesContext(ctx, e.unit, "Service")
	if perr == nil {
		status, _ := p["ExecMainStatus"].(int32)
		result, _ := p["Result"].(string)
		s.Err = &unitError{result: result, status: int(status)}
		s.Cure = "see what systemd says of it: journalctl -u " + e.unit
	}
	e.link.forget(ctx, e.unit)
	return s
}

// unitError is how a unit ended that should not have.
type unitError struct {
	result string // as in systemd's property Result
	status int
}

func (e *unitError) Error() string {
	if name := exitNames[e.status]; name != "" {
		return fmt.Sprintf("it ended with %s, status %d (%s)", e.result, e.status, name)
	}
	return fmt.Sprintf("it ended with %s, status %d", e.result, e.status)
}

// exitNames are the steps that systemd fails at before it executes a program (systemd.exec(5), "Process Exit Codes").
var exitNames = map[int]string{
	200: "change directory", 203: "execute program", 208: "standard input", 209: "standard output", 214: "scheduling",
	216: "group", 217: "user", 218: "capabilities", 219: "control group", 222: "standard error", 225: "network namespace",
	226: "mounts", 227: "no new privileges", 228: "system call filter", 233: "runtime directory", 243: "credentials",
}

// listenAt makes the control socket. Only this user can connect to it.
func listenAt(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// greet connects to the unit, hears what is in force, starts to measure, and sends the order.
func (e *execution) greet() error {
	err := e.connect()
	if err == nil {
		e.watch, err = startWatch(e)
	}
	if err == nil {
		err = e.sendOrder()
	}
	if err == nil {
		return nil
	}
	e.dismiss()
	os.Remove(e.options.socket(e.spec.Name))
	e.talk.abandon()
	if e.watch != nil {
		e.watch.end()
	}
	if e.control != nil {
		e.control.Close()
	}
	if _, ok := errors.AsType[*runner.SetupError](err); ok {
		return err
	}
	return &runner.SetupError{Act: "start confinement in unit " + e.unit, Err: err}
}

// dismiss ends and forgets a unit in which nothing was run.
func (e *execution) dismiss() {
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	l := e.bus.live(ctx, e.link)
	l.stop(ctx, e.unit)
	l.forget(ctx, e.unit)
}

func (e *execution) connect() (err error) {
	e.control, e.hello, err = dialUnit(e.options.socket(e.spec.Name))
	return err
}

// dialUnit connects to the control socket of a unit and hears what is in force in it.
func dialUnit(path string) (*net.UnixConn, hello, error) {
	var h hello
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, h, err
	}
	conn.SetReadDeadline(time.Now().Add(busTimeout))
	kind, body, err := readFrame(conn, maxFrame)
	if err == nil && kind != frameHello {
		err = fmt.Errorf("unexpected frame %q", kind)
	}
	if err == nil {
		err = json.Unmarshal(body, &h)
	}
	if err != nil {
		conn.Close()
		return nil, h, fmt.Errorf("hear from unit: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	return conn, h, nil
}

// sendOrder sends the order.
func (e *execution) sendOrder() error {
	far, err := e.talk.open(e.spec)
	if err != nil {
		return err
	}
	if err := writeOrder(e.control, e.order(), far); err != nil {
		return err
	}
	e.talk.started()
	return nil
}

// order is what the inner layer is told: everything but what the unit itself limits.
func (e *execution) order() order {
	s := e.spec
	return order{
		Name: s.Name, Commands: s.Commands, Mounts: e.layout.mounts, Devices: e.layout.nodes, Outputs: s.Outputs,
		Hostname: s.Hostname, UID: s.UID, GID: s.GID, Umask: s.Umask, CPUs: s.CPUs, ClockOffset: s.ClockOffset, Network: s.Network,
		// A limit of time would have the inner layer watch refused calls, of which it sees but a part here, and to commands that
		// would make a difference.
		Limits: runner.Limits{Scratch: s.Limits.Scratch, Log: s.Limits.Log, Output: s.Limits.Output}, Wall: s.Limits.Wall,
		Degraded: s.Degraded, HostUID: e.layout.uid, HostGID: e.layout.gid, Exchange: s.Exchange != nil, OneLog: same(s.Stdout, s.Stderr),
	}
}

// writeOrder sends o; the exchange, if there is one, goes along with its first bytes.
func writeOrder(conn *net.UnixConn, o order, exchange *os.File) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if len(body) > maxOrder {
		return fmt.Errorf("send order: %d bytes are more than %d", len(body), maxOrder)
	}
	var rights []byte
	if exchange != nil {
		fd, err := duplicate(exchange)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		rights = unix.UnixRights(fd)
	}
	var head strings.Builder
	if err := writeFrame(&head, frameOrder, body); err != nil {
		return err
	}
	frame := []byte(head.String())
	n, _, err := conn.WriteMsgUnix(frame, rights, nil)
	if err != nil {
		return err
	}
	_, err = conn.Write(frame[n:])
	return err
}
