package systemd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/attest/digest"
	"arch.network/runner"
)

// unitPrefix and unitSuffix make the name of a unit of that of an execution.
const (
	unitPrefix = "arch-job-"
	unitSuffix = ".service"
)

func unitName(name string) string { return unitPrefix + name + unitSuffix }

// execution is one run, seen from the driver's side.
type execution struct {
	options Options
	bus     *bus
	link    *link // on which the unit was started
	spec    runner.Spec
	layout  layout
	unit    string

	logs    logs
	talk    talk
	control *net.UnixConn
	watch   *watch
	hello   hello

	collected []runner.Collected
	outcome   *outcome
	started   time.Time
	finished  time.Time

	mu     sync.Mutex // guards the rest
	stop   *ending    // why the driver killed the unit
	failed error      // Run's error, if the driver killed it for one
}

// ending is why a driver ended an execution.
type ending struct {
	reason runner.Reason
	detail string
}

// Run implements runner.Runner.
func (r *Runner) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	spec, err := complete(spec)
	if err != nil {
		return runner.Result{}, err
	}
	missing, err := r.report.require(spec)
	if err != nil {
		return runner.Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return runner.Result{Reason: runner.ReasonCancelled, Detail: err.Error()}, nil
	}
	l, err := arrange(spec, lstat, disks())
	if err != nil {
		return runner.Result{}, arrangeError(err)
	}
	link, err := r.bus.get(ctx)
	if err != nil {
		return runner.Result{}, err
	}
	e := &execution{options: r.options, bus: r.bus, link: link, spec: spec, layout: l, unit: unitName(spec.Name)}
	result, err := e.run(ctx)
	if err != nil {
		return runner.Result{}, err
	}
	result.Confinement = e.confinement(result.Confinement, r.report, missing)
	return result, nil
}

// Properties returns the properties of the unit that Run makes for spec, but for descriptors, which differ each time.
// It looks at the host only to see what the sources of mounts are, and needs no systemd: a Runner that New has not made will do.
func (r *Runner) Properties(spec runner.Spec) ([]Property, error) {
	spec, err := complete(spec)
	if err != nil {
		return nil, err
	}
	l, err := arrange(spec, lstat, disks())
	if err != nil {
		return nil, arrangeError(err)
	}
	o, err := r.options.defaults()
	if err != nil {
		return nil, err
	}
	return o.unit(spec, l), nil
}

func arrangeError(err error) error {
	e := &runner.SetupError{Act: "arrange mounts", Err: err}
	if _, ok := errors.AsType[*ownerError](err); ok {
		e.Cure = cureOwner
	}
	return e
}

// complete checks what this driver itself uses of spec, and names it; the inner layer checks the rest.
func complete(spec runner.Spec) (runner.Spec, error) {
	if err := checkSpec(spec); err != nil {
		return spec, &runner.SetupError{Act: "check spec", Err: err}
	}
	if spec.Name == "" {
		spec.Name = randomName()
	}
	return spec, nil
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func checkSpec(spec runner.Spec) error {
	l := spec.Limits
	for _, n := range []int64{int64(l.Wall), l.CPU, l.Memory, l.Scratch, int64(l.Processes), l.Log, l.Output, l.IORead, l.IOWrite} {
		if n < 0 {
			return errors.New("a limit is negative")
		}
	}
	switch {
	case len(spec.Name) > 64 || strings.Trim(spec.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("name %q is not 1 to 64 of a-z, 0-9 and '-'", spec.Name)
	case spec.Module != nil:
		return errors.New("a driver runs no modules: give the Spec to runner/wasm")
	case !(l.Power >= 0) || math.IsInf(l.Power, 0):
		return fmt.Errorf("power of %v watts is not a positive number", l.Power)
	case l.Memory > 0 && l.Memory > 1<<60 || int64(l.Processes) > 1<<22 || l.CPU > 1<<40:
		return errors.New("a limit is absurdly high")
	}
	return checkOutputs(spec)
}

func checkOutputs(spec runner.Spec) error {
	seen := map[string]bool{}
	for _, o := range spec.Outputs {
		if o.Name == "" || seen[o.Name] {
			return fmt.Errorf("output name %q is empty or not unique", o.Name)
		}
		seen[o.Name] = true
	}
	if len(spec.Outputs) > 0 && spec.Collect == nil {
		return errors.New("there are outputs, but nothing collects them")
	}
	return nil
}

// run is the whole life of the execution.
func (e *execution) run(ctx context.Context) (runner.Result, error) {
	if err := e.start(ctx); err != nil {
		return runner.Result{}, err
	}
	defer e.clean()
	return e.conclude(ctx)
}

// conclude sees the execution to its end, and everything of it gone.
func (e *execution) conclude(ctx context.Context) (runner.Result, error) {
	defer context.AfterFunc(ctx, func() {
		e.kill(&ending{runner.ReasonCancelled, context.Cause(ctx).Error()}, nil)
	})()
	err := e.follow()
	if err != nil {
		e.kill(nil, err)
	}
	e.watch.end()
	if e.outcome != nil {
		writeFrame(e.control, frameTaken, nil)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), busTimeout)
	defer cancel()
	serr := e.bus.live(end, e.link).stop(end, e.unit) // returns when the last process is gone
	e.control.Close()
	e.logs.wait()
	e.talk.end()
	if serr != nil {
		return runner.Result{}, serr
	}
	return e.result(end)
}

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
	e.logs.abandon()
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

// sendOrder sends the order with the descriptors.
func (e *execution) sendOrder() error {
	files, err := e.logs.open(e.spec, e.overflow)
	if err != nil {
		return err
	}
	oneLog := len(files) == 1
	far, err := e.talk.open(e.spec)
	if err != nil {
		return err
	}
	if far != nil {
		files = append(files, far)
	}
	if err := writeOrder(e.control, e.order(oneLog), files); err != nil {
		return err
	}
	e.logs.start()
	e.talk.started()
	return nil
}

// order is what the inner layer is told: everything but what the unit itself limits.
func (e *execution) order(oneLog bool) order {
	s := e.spec
	return order{
		Name: s.Name, Commands: s.Commands, Mounts: e.layout.mounts, Devices: e.layout.nodes, Outputs: s.Outputs,
		Hostname: s.Hostname, UID: s.UID, GID: s.GID, Umask: s.Umask, CPUs: s.CPUs, ClockOffset: s.ClockOffset, Network: s.Network,
		// A limit of time would have the inner layer watch refused calls, of which it sees but a part here, and to commands that
		// would make a difference.
		Limits: runner.Limits{Scratch: s.Limits.Scratch, Log: s.Limits.Log, Output: s.Limits.Output}, Wall: s.Limits.Wall,
		Degraded: s.Degraded, HostUID: e.layout.uid, HostGID: e.layout.gid, Exchange: s.Exchange != nil, OneLog: oneLog,
	}
}

// writeOrder sends o; files go along with its first bytes.
func writeOrder(conn *net.UnixConn, o order, files []*os.File) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if len(body) > maxOrder {
		return fmt.Errorf("send order: %d bytes are more than %d", len(body), maxOrder)
	}
	var fds []int
	for _, f := range files {
		fd, err := duplicate(f)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	var head strings.Builder
	if err := writeFrame(&head, frameOrder, body); err != nil {
		return err
	}
	frame := []byte(head.String())
	n, _, err := conn.WriteMsgUnix(frame, unix.UnixRights(fds...), nil)
	if err != nil {
		return err
	}
	_, err = conn.Write(frame[n:])
	return err
}

// kill ends the execution for the reason, or for the error, that comes first.
func (e *execution) kill(why *ending, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stop != nil || e.failed != nil {
		return
	}
	e.stop, e.failed = why, err
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	e.bus.live(ctx, e.link).kill(ctx, e.unit)
}

// overflow is called when a writer of the log has failed, or more is written than may be.
func (e *execution) overflow(err error) {
	if err != nil {
		e.kill(nil, fmt.Errorf("write log: %w", err))
	}
}

// follow reads what the unit says until its outcome, or its end.
func (e *execution) follow() error {
	e.started = time.Now()
	defer func() { e.finished = time.Now() }()
	for {
		kind, body, err := e.frame()
		if err != nil {
			return err
		}
		switch kind {
		case 0: // the unit has ended; what systemd says of it tells why
			return nil
		case frameBegin:
			e.talk.begin(func(err error) { e.kill(nil, err) })
		case frameOutput:
			if err := e.output(body); err != nil {
				return err
			}
		case frameOutcome:
			var o outcome
			if err := json.Unmarshal(body, &o); err != nil {
				return fmt.Errorf("read outcome: %w", err)
			}
			e.outcome = &o
			return nil
		default:
			return fmt.Errorf("read control socket: unexpected frame %q", kind)
		}
	}
}

// frame returns the next frame; kind 0 when the unit has ended.
func (e *execution) frame() (kind byte, body []byte, err error) {
	kind, body, err = readFrame(e.control, maxOrder)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, nil, nil
	}
	return kind, body, err
}

// output takes one output and hands it to Collect.
func (e *execution) output(body []byte) error {
	collected, err := takeOutput(e.control, body, e.spec.Outputs, e.spec.Limits.Output, e.spec.Collect)
	if err == nil && collected != nil {
		e.collected = append(e.collected, *collected)
	}
	return err
}

// defaultOutput is what a Limits.Output of zero stands for.
const defaultOutput = 16 << 30

// takeOutput reads the frames of the output whose index body is. It returns nil, without an error, for one that the unit
// says is not whole: the outcome will tell why.
func takeOutput(from io.Reader, body []byte, outputs []runner.Output, limit int64, collect func(runner.Output, io.Reader) error) (*runner.Collected, error) {
	var n int
	if err := json.Unmarshal(body, &n); err != nil || n < 0 || n >= len(outputs) {
		return nil, fmt.Errorf("read control socket: output %.100q does not exist", body)
	}
	if limit == 0 {
		limit = defaultOutput
	}
	out := outputs[n]
	r := &outputReader{from: from, left: limit}
	err := collect(out, r)
	if err == nil || r.broken != "" {
		_, rerr := io.Copy(io.Discard, r)
		if r.broken != "" {
			return nil, nil
		}
		err = rerr
	}
	if err != nil {
		return nil, fmt.Errorf("collect output %s: %w", out.Name, err)
	}
	return &runner.Collected{Name: out.Name, NAR: r.hash.Sum(), Size: r.hash.Size()}, nil
}

// outputReader reads the data frames of one output, which come from a stranger: it bounds them.
type outputReader struct {
	from   io.Reader
	left   int64 // bytes that may still come
	body   []byte
	hash   digest.Writer
	broken string // what the unit says is wrong with the output
	err    error  // sticky
}

func (r *outputReader) Read(p []byte) (int, error) {
	for len(r.body) == 0 && r.err == nil {
		r.next()
	}
	if len(r.body) == 0 {
		return 0, r.err
	}
	n := copy(p, r.body)
	r.hash.Write(p[:n])
	r.body = r.body[n:]
	return n, nil
}

func (r *outputReader) next() {
	kind, body, err := readFrame(r.from, maxFrame)
	switch {
	case errors.Is(err, io.EOF):
		r.err = io.ErrUnexpectedEOF
	case err != nil:
		r.err = err
	case kind == frameData && int64(len(body)) > r.left:
		r.err = errors.New("the unit sends more than it may")
	case kind == frameData:
		r.body, r.left = body, r.left-int64(len(body))
	case kind == frameEOF && len(body) == 0:
		r.err = io.EOF
	case kind == frameEOF:
		r.broken = fmt.Sprintf("%.500q", body)
		r.err = errors.New(r.broken)
	default:
		r.err = fmt.Errorf("unexpected frame %q", kind)
	}
}

// clean removes what the execution has made outside of systemd.
func (e *execution) clean() { os.Remove(e.options.socket(e.spec.Name)) }
