package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
	"arch.network/runner/checkpoint"
	"arch.network/runner/closure"
	"arch.network/runner/job"
	"arch.network/runner/oci"
)

// Options configure a Server.
type Options struct {
	Runner runner.Runner // confines jobs; required
	Files  Files         // what is trusted; required
	// State is a directory of the broker's own, which is made if it is not there: received content, unpacked images, and what must
	// be remembered. Required.
	State string
	// Users are the user ids that may ask. Nobody else is answered but with a refusal, not even root. Required.
	Users []uint32
	// Names are what this node is called in spec.audience of a job: its identity, its pools.
	Names []string

	Connections int   // at one time; zero: 64
	Jobs        int   // at one time; zero: 16
	Content     int64 // bytes that a client may send for one job; zero: 16 GiB
	Cache       int64 // bytes that are kept: of content that no job uses, and of results that nobody has taken; zero: 16 GiB

	// Kept is how many detached jobs are kept on disk until their results are taken. Zero: 256.
	Kept int
	// Keep is for how long, from their start. Zero: 24 hours.
	Keep time.Duration

	// RequestTime is how long a client may take for its request, and for each frame of content. Zero: 10 seconds.
	RequestTime time.Duration
	// WriteTime is how long a client may take to read a frame. A job waits meanwhile. Zero: one minute.
	WriteTime time.Duration
	// Drain is how long running jobs may go on when Serve's context ends. Zero: they are ended at once.
	Drain time.Duration

	// Survivors lists, by name, what still runs that an earlier process had started. Detached jobs then outlive the broker, and Serve
	// leaves them alone when it returns: the process must end soon after. Nil: nothing outlives the broker.
	Survivors func(ctx context.Context) (map[string]Survivor, error)
	// Store opens what vouches for the host's store that a path lies in; the broker closes it. That there is nothing is
	// closure.ErrUnknown. Nil: nobody vouches.
	Store func(ctx context.Context, path string) (Vouching, error)
	// Checkpoint runs a module so that it can be stopped where it stands and go on: checkpoint.Run, with the engine of Runner. Nil:
	// checkpointable jobs are refused.
	Checkpoint func(ctx context.Context, spec runner.Spec, o checkpoint.Options) (runner.Result, *checkpoint.Checkpoint, error)
	// Devices resolves Container Device Interface names. Nil: there are no devices.
	Devices func(names []string) (job.Devices, error)

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: nothing is logged
}

// Vouching says what the NAR hash of a store path must be: a closure.Daemon does.
type Vouching interface {
	Verify(ctx context.Context, path string) (closure.Proof, error)
	Close() error
}

// Server is a broker. Make it with New, run it with Serve, and then Close it.
type Server struct {
	o      Options
	cache  *cache
	images *oci.Cache
	ledger *ledger
	tasks  *tasks
	load   load

	snapshots *snapshots

	cleaned atomic.Int64 // when unused images were removed last: seconds since 1970

	stopping context.Context // ends when Serve's does; set by Serve

	lasting context.Context // of detached jobs
	endAll  context.CancelCauseFunc
	running sync.WaitGroup // detached jobs

	connections, jobs chan struct{} // hold a token for each
}

// The zero values of Options.
const (
	defaultConnections = 64
	defaultJobs        = 16
	defaultKept        = 256
	defaultKeep        = 24 * time.Hour
	defaultBytes       = 16 << 30
	defaultRequestTime = 10 * time.Second
	defaultWriteTime   = time.Minute
)

func (o Options) complete() (Options, error) {
	switch {
	case o.Runner == nil:
		return o, errors.New("make broker: it has no runner")
	case o.State == "" || o.Files.TrustRoot == "" || o.Files.Policy == "":
		return o, errors.New("make broker: the state directory, the trust root or the policy is not named")
	case len(o.Users) == 0:
		return o, errors.New("make broker: nobody may ask it")
	}
	or := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	or(&o.Connections, defaultConnections)
	or(&o.Jobs, defaultJobs)
	or(&o.Kept, defaultKept)
	if o.Keep <= 0 {
		o.Keep = defaultKeep
	}
	if o.Content <= 0 {
		o.Content = defaultBytes
	}
	if o.Cache <= 0 {
		o.Cache = defaultBytes
	}
	if o.RequestTime <= 0 {
		o.RequestTime = defaultRequestTime
	}
	if o.WriteTime <= 0 {
		o.WriteTime = defaultWriteTime
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// New opens the state directory. It starts nothing.
func New(ctx context.Context, o Options) (*Server, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, connections: make(chan struct{}, o.Connections), jobs: make(chan struct{}, o.Jobs)}
	if s.cache, err = openCache(filepath.Join(o.State, "content"), o.Cache); err != nil {
		return nil, fmt.Errorf("open state of broker: %w", err)
	}
	s.lasting, s.endAll = context.WithCancelCause(context.WithoutCancel(ctx))
	if s.ledger, err = openLedger(filepath.Join(o.State, "spent.json")); err == nil {
		s.tasks, err = openTasks(filepath.Join(o.State, "jobs"))
	}
	if err == nil {
		s.snapshots, err = openSnapshots(filepath.Join(o.State, "snapshots"), o.Cache)
	}
	if err == nil {
		s.images, err = oci.Open(ctx, oci.Options{Dir: filepath.Join(o.State, "images")})
	}
	if err != nil {
		s.cache.close()
		return nil, fmt.Errorf("open state of broker: %w", err)
	}
	return s, nil
}

// Close gives up the state directory, when Serve has returned.
func (s *Server) Close() error { return errors.Join(s.images.Close(), s.cache.close()) }

// Serve answers connections until ctx ends. Then it accepts no more, lets jobs go on for Options.Drain, ends them, and returns when
// the last connection is closed. It closes the listener.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	if err := s.revive(ctx); err != nil {
		l.Close()
		return err
	}
	s.stopping = ctx
	sessions, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var open sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := s.accept(sessions, l, &open)
	l.Close()
	if ctx.Err() != nil {
		err = nil
	}
	s.drain(&open, func() { cancel(errStopping) })
	if s.o.Survivors != nil {
		s.tasks.leave()
		return err
	}
	s.endAll(errStopping)
	s.running.Wait()
	return err
}

// How long an unpacked image is kept that no job uses, and how often it is looked for such.
const (
	imageIdle  = 7 * 24 * time.Hour
	imageCheck = time.Hour
)

// cleanImages removes images that were not used for long, once in a while.
func (s *Server) cleanImages() {
	now, last := time.Now().Unix(), s.cleaned.Load()
	if now-last < int64(imageCheck/time.Second) || !s.cleaned.CompareAndSwap(last, now) {
		return
	}
	if n, err := s.images.Clean(s.lasting, oci.CleanOptions{Unused: imageIdle}); err != nil {
		s.o.Log.Warn("images not cleaned", "error", err)
	} else if n > 0 {
		s.o.Log.Info("images cleaned", "removed", n)
	}
}

// errStopping ends what goes on when the broker is stopped.
var errStopping = refuse(CodeStopping, "ask again when it is back", "the broker is being stopped")

// drain waits for all sessions, and ends them when the time is over.
func (s *Server) drain(open *sync.WaitGroup, end func()) {
	timer := time.AfterFunc(s.o.Drain, end)
	defer timer.Stop()
	open.Wait()
}

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx context.Context, l *net.UnixListener, open *sync.WaitGroup) error {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) {
				s.o.Log.WarnContext(ctx, "connection not accepted", "error", err)
				if !pause(ctx, 10*time.Millisecond) {
					return nil
				}
				continue
			}
			return fmt.Errorf("accept connection: %w", err)
		}
		peer, refusal := s.screen(conn)
		if refusal != nil {
			s.turnAway(ctx, conn, peer, refusal)
			continue
		}
		open.Go(func() {
			defer func() { <-s.connections }()
			s.serve(ctx, conn, peer)
		})
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// screen decides by the kernel's word on who connected, before a byte is read, and takes a token if there is one.
func (s *Server) screen(conn *net.UnixConn) (unix.Ucred, *Refusal) {
	peer, err := credentials(conn)
	switch {
	case err != nil:
		return peer, refuse(CodePeer, "", "the kernel does not say who asks: %v", err)
	case !slices.Contains(s.o.Users, peer.Uid):
		return peer, refuse(CodePeer, "run it as a user whom the broker lets ask: arch-runnerd --user", "user %d may not ask this broker", peer.Uid)
	}
	select {
	case s.connections <- struct{}{}:
		return peer, nil
	default:
		return peer, refuse(CodeBusy, "try again later", "%d connections are open, the most that the broker takes", s.o.Connections)
	}
}

func credentials(conn *net.UnixConn) (unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var cred *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return unix.Ucred{}, err
	}
	if sockErr != nil {
		return unix.Ucred{}, sockErr
	}
	return *cred, nil
}

// turnAway says no and closes. A fresh socket's buffer takes the frame, so this does not wait.
func (s *Server) turnAway(ctx context.Context, conn *net.UnixConn, peer unix.Ucred, refusal *Refusal) {
	defer conn.Close()
	s.o.Log.WarnContext(ctx, "connection refused", "uid", peer.Uid, "pid", peer.Pid, "code", refusal.Code)
	if frame, err := encode(kindRefusal, refusal.bounded()); err == nil {
		conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		conn.Write(frame)
	}
}

// serve is one connection. Whatever happens in it, the broker lives.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, peer unix.Ucred) {
	defer conn.Close()
	c := newSession(s, conn, peer.Uid)
	log := s.o.Log.With("uid", peer.Uid, "pid", peer.Pid)
	defer func() {
		if p := recover(); p != nil {
			log.ErrorContext(ctx, "session panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.refuse(refuse(CodeInternal, "", "the broker failed; its log says how"))
		}
	}()
	err := c.run(ctx)
	if errors.Is(err, errFollowerGone) {
		log.InfoContext(ctx, "client gone, job goes on", "job", c.id)
		return
	}
	if err == nil {
		log.InfoContext(ctx, "job done", "job", c.id, "reason", c.reason)
		return
	}
	if cause, ok := errors.AsType[*Refusal](context.Cause(ctx)); ok && ctx.Err() != nil {
		err = cause
	}
	r := refusalOf(err)
	log.WarnContext(ctx, "job refused", "job", c.id, "code", r.Code, "message", r.Message)
	c.refuse(r)
}

// Alive reports whether the broker can still do its work: whether nothing holds what every session needs.
func (s *Server) Alive() bool {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	return s.cache.objects != nil
}
