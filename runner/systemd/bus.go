package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"arch.network/runner"
)

// busTimeout bounds every call to systemd that does not wait for a job.
const busTimeout = 30 * time.Second

// bus is a connection to systemd that is made again when it breaks.
type bus struct {
	private bool

	mu     sync.Mutex // guards the rest
	link   *link
	closed bool
}

// link is one connection.
type link struct {
	*sd.Conn
	private bool
	raw     *dbus.Conn // the one of Conn's connections that calls methods: references to units are its own
	watches *watches
}

func connect(ctx context.Context, private bool) (*bus, error) {
	b := &bus{private: private}
	if _, err := b.get(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// get returns a connection that works.
func (b *bus) get(ctx context.Context) (*link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("talk to systemd: the driver is closed")
	}
	if b.link != nil && b.link.Connected() {
		return b.link, nil
	}
	if b.link != nil {
		b.link.end()
	}
	l, err := dial(ctx, b.private)
	if err != nil {
		return nil, err
	}
	b.link = l
	return l, nil
}

// live returns l if it works, and another one otherwise, if that can be had.
func (b *bus) live(ctx context.Context, l *link) *link {
	if l.Connected() {
		return l
	}
	if other, err := b.get(ctx); err == nil {
		return other
	}
	return l
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.link != nil {
		b.link.end()
	}
}

func (l *link) end() {
	l.Close()
	l.watches.abandon()
}

// cureBus tells what lets this process talk to systemd.
const cureBus = "run as root on a host whose first process is systemd, or use the broker or the namespace driver"

// dial connects. The connection outlives ctx.
func dial(ctx context.Context, private bool) (*link, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, &runner.SetupError{Act: "talk to systemd", Err: errors.New("it is not this host's first process"), Cure: cureBus}
	}
	var raws []*dbus.Conn
	conn, err := sd.NewConnection(func() (*dbus.Conn, error) {
		c, err := dialRaw(private)
		if err == nil {
			raws = append(raws, c)
		}
		return c, err
	})
	if err != nil {
		return nil, &runner.SetupError{Act: "talk to systemd", Err: err, Cure: cureBus}
	}
	if err := ctx.Err(); err != nil {
		conn.Close()
		return nil, err
	}
	l := &link{Conn: conn, private: private, raw: raws[0]}
	if err := l.subscribe(); err != nil {
		conn.Close()
		return nil, &runner.SetupError{Act: "subscribe to systemd", Err: err, Cure: cureBus}
	}
	return l, nil
}

// dialRaw makes one connection, on which systemd knows the caller by his uid.
func dialRaw(private bool) (*dbus.Conn, error) {
	var c *dbus.Conn
	var err error
	if private {
		c, err = dbus.Dial("unix:path=/run/systemd/private")
	} else {
		c, err = dbus.SystemBusPrivate()
	}
	if err != nil {
		return nil, err
	}
	if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		c.Close()
		return nil, err
	}
	if private { // nobody says hello to the private socket
		return c, nil
	}
	if err := c.Hello(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

const (
	managerName = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	managerFace = managerName + ".Manager"
	unitFace    = managerName + ".Unit"
)

// subscribe asks for the signals by which units tell of their end.
func (l *link) subscribe() error {
	l.watches = &watches{units: map[dbus.ObjectPath][]chan struct{}{}}
	if err := l.Subscribe(); err != nil {
		return err
	}
	manager := l.raw.Object(managerName, managerPath)
	if err := manager.Call(managerFace+".Subscribe", 0).Err; err != nil {
		return err
	}
	if !l.private { // the private socket has no rules: it sends everything
		rule := "type='signal',sender='" + managerName +
			"',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',path_namespace='" + managerPath + "/unit'"
		if err := l.raw.BusObject().Call("org.freedesktop.DBus.AddMatch", 0, rule).Err; err != nil {
			return err
		}
	}
	signals := make(chan *dbus.Signal, 64)
	l.raw.Signal(signals)
	go l.watches.follow(signals)
	return nil
}

// start starts the transient unit and returns when its program has been executed, or with systemd's word for why not.
func (l *link) start(ctx context.Context, name string, properties []sd.Property) error {
	if l.private {
		properties = withoutReference(properties)
	}
	done := make(chan string, 1)
	if _, err := l.StartTransientUnitContext(ctx, name, "fail", properties, done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return &jobError{unit: name, result: result}
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withoutReference is for the private socket, on which nobody can hold a reference: a unit that has failed stays until
// forget, and one that has not is gone.
func withoutReference(properties []sd.Property) []sd.Property {
	properties = slices.DeleteFunc(slices.Clone(properties), func(p sd.Property) bool { return p.Name == "AddRef" || p.Name == "CollectMode" })
	return append(properties, sd.Property{Name: "CollectMode", Value: dbus.MakeVariant("inactive")})
}

// jobError says that systemd could not do what it was asked.
type jobError struct{ unit, result string }

func (e *jobError) Error() string {
	return fmt.Sprintf("start unit %s: job ended as %q", e.unit, e.result)
}

// stop ends the unit, whatever it does, and returns when all its processes are gone. A unit that does not exist is none.
func (l *link) stop(ctx context.Context, name string) error {
	done := make(chan string, 1)
	if _, err := l.StopUnitContext(ctx, name, "replace", done); err != nil {
		if isNoSuchUnit(err) {
			return nil
		}
		return fmt.Errorf("stop unit %s: %w", name, err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop unit %s: %w", name, ctx.Err())
	}
}

// keep has systemd keep what it knows of the unit until forget: a reference is the connection's.
func (l *link) keep(ctx context.Context, name string) error {
	if l.private {
		return nil
	}
	return l.raw.Object(managerName, managerPath).CallWithContext(ctx, managerFace+".RefUnit", 0, name).Err
}

// forget lets systemd unload the unit, which must have ended.
func (l *link) forget(ctx context.Context, name string) {
	if !l.private {
		l.raw.Object(managerName, managerPath).CallWithContext(ctx, managerFace+".UnrefUnit", 0, name)
	}
	l.ResetFailedUnitContext(ctx, name)
}

// kill sends SIGKILL to every process of the unit.
func (l *link) kill(ctx context.Context, name string) error {
	err := l.KillUnitWithTarget(ctx, name, sd.All, 9)
	if err != nil && isNoSuchUnit(err) {
		return nil
	}
	return err
}

func isUnitExists(err error) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && strings.HasSuffix(e.Name, ".UnitExists")
}

func isNoSuchUnit(err error) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && (strings.HasSuffix(e.Name, ".NoSuchUnit") || strings.HasSuffix(e.Name, ".NoSuchProcess"))
}

// watches tells of units that end.
type watches struct {
	mu    sync.Mutex // guards units and over
	units map[dbus.ObjectPath][]chan struct{}
	over  bool // the connection is gone
}

// follow reads the signals until the connection ends.
func (w *watches) follow(signals <-chan *dbus.Signal) {
	for s := range signals {
		if s.Name != "org.freedesktop.DBus.Properties.PropertiesChanged" || len(s.Body) < 2 {
			continue
		}
		changed, _ := s.Body[1].(map[string]dbus.Variant)
		if s.Body[0] == unitFace && hasEnded(changed) {
			w.tell(s.Path)
		}
	}
	w.abandon()
}

// hasEnded reports whether the changed properties of a unit are those of one that has ended. A unit that has just been loaded is
// inactive, too, and the signal that says so may be read when the unit already runs: it has never become inactive.
func hasEnded(changed map[string]dbus.Variant) bool {
	state, _ := changed["ActiveState"].Value().(string)
	since, known := changed["InactiveEnterTimestampMonotonic"].Value().(uint64)
	return ended(state) && (!known || since > 0)
}

func ended(state string) bool { return state == "inactive" || state == "failed" }

func (w *watches) tell(path dbus.ObjectPath) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.units[path] {
		close(c)
	}
	delete(w.units, path)
}

// abandon tells everyone, since nothing more will come.
func (w *watches) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for path, list := range w.units {
		for _, c := range list {
			close(c)
		}
		delete(w.units, path)
	}
}

// ended returns a channel that is closed when the unit, which has been started, has ended, or the connection has.
func (l *link) ended(ctx context.Context, name string) <-chan struct{} {
	c := make(chan struct{})
	path := dbus.ObjectPath(managerPath + "/unit/" + sd.PathBusEscape(name))
	l.watches.mu.Lock()
	if l.watches.over {
		close(c)
		l.watches.mu.Unlock()
		return c
	}
	l.watches.units[path] = append(l.watches.units[path], c)
	l.watches.mu.Unlock()
	p, err := l.GetUnitPropertyContext(ctx, name, "ActiveState") // it may have ended before
	if err != nil {
		l.watches.tell(path)
	} else if state, _ := p.Value.Value().(string); ended(state) {
		l.watches.tell(path)
	}
	return c
}
