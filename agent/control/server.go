package control

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"arch.network/agent"
	"arch.network/agent/control/logview"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

// DefaultConnections is how many connections may be open at one time on each listener.
const DefaultConnections = 2048

// Options are what a Server serves, and to whom.
type Options struct {
	Node agent.Node
	// Known says whether somebody signed an envelope whom the node knows; the error says why not. It must verify, and cost little:
	// strangers call it. Nil: only operators hand in documents.
	Known func(env *dsse.Envelope) error
	// Operators may do everything over the socket, beside root and the user that the server runs as.
	Operators Operators
	Reading   bool     // everybody who can connect may read
	Hosts     []string // names by which the node is called over TCP, beside its addresses and localhost

	// Content takes what jobs pin, from operators. Nil: it is not taken.
	Content Content
	// Archive writes a job's archive file. Nil: not served.
	Archive func(ctx context.Context, id digest.SHA256, w io.Writer) error

	Policy    func(ctx context.Context) ([]byte, error) // the envelope of the policy in force; nil: not served
	Ledger    *logview.Log                              // nil: not served
	Tiles     http.Handler                              // the ledger's tiles by their paths, such as /checkpoint; nil: not served
	Witness   http.Handler                              // cosigns the ledgers of others, at /add-checkpoint; nil: the node is no witness
	Dashboard http.Handler                              // every other path; nil: there is none
	Ready     func(ctx context.Context) error           // why the node takes no jobs; nil: it does when it answers

	Connections int           // open at one time, on each listener; zero: DefaultConnections
	Streams     int           // events and logs that are followed at one time; zero: 1000
	Slow        time.Duration // how long a reader may take what was written to it; zero: 10 s
	Heartbeat   time.Duration // between signs of life on a silent stream; zero: 15 s
	Log         *slog.Logger  // nil: nothing is logged
	Now         func() time.Time
}

// Operators are users and groups of this machine, by number.
type Operators struct{ UIDs, GIDs []uint32 }

// Server answers requests to one node.
type Server struct {
	o       Options
	routes  []route
	mux     *http.ServeMux
	own     uint32
	streams chan struct{} // a place for each that is open
	stats   *stats
	samples *sampler
	stop    context.Context // ends when streams must
	halt    context.CancelFunc
}

// New returns a server that listens nowhere yet.
func New(o Options) *Server {
	o.Connections, o.Streams = cmp.Or(o.Connections, DefaultConnections), cmp.Or(o.Streams, 1000)
	o.Slow, o.Heartbeat = cmp.Or(o.Slow, 10*time.Second), cmp.Or(o.Heartbeat, 15*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{o: o, own: uint32(os.Geteuid()), streams: make(chan struct{}, o.Streams), samples: newSampler(o.Node, o.Now)}
	s.stop, s.halt = context.WithCancel(context.Background())
	s.routes = s.table()
	s.stats = newStats(s.routes)
	s.mux = s.newMux()
	return s
}

// The limits of a connection.
const (
	headerTime  = 10 * time.Second
	requestTime = 30 * time.Second
	idleTime    = 2 * time.Minute
	maxHeader   = 16 << 10
	drainTime   = 5 * time.Second
)

// Serve answers on all listeners until ctx ends, and closes them. It then lets requests end for a few seconds; streams end at once.
// It is called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
		ConnContext:    withPeer,
	}
	g, running := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			err := server.Serve(newLimited(l, s.o.Connections))
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		})
	}
	g.Go(func() error {
		s.samples.run(running)
		return nil
	})
	g.Go(func() error {
		<-running.Done()
		s.halt()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if server.Shutdown(ending) != nil {
			return server.Close()
		}
		return nil
	})
	return g.Wait()
}

// limited accepts no more than so many connections at one time; those beyond are closed at once, so that nobody waits in vain.
type limited struct {
	net.Listener
	places chan struct{}
}

func newLimited(l net.Listener, n int) net.Listener {
	return &limited{l, make(chan struct{}, n)}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			bound(c)
			return &counted{Conn: c, free: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			c.Close()
		}
	}
}

// sendBuffer is the most bytes that wait in the kernel for a reader: without it, a slow one holds megabytes.
const sendBuffer = 64 << 10

func bound(c net.Conn) {
	if b, ok := c.(interface{ SetWriteBuffer(int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer) // it is a hint
	}
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	free func()
}

func (c *counted) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// enter takes a place for a stream; leave gives it back.
func (s *Server) enter() (leave func(), ok bool) {
	select {
	case s.streams <- struct{}{}:
		return func() { <-s.streams }, true
	default:
		return nil, false
	}
}

func (o Operators) include(uid uint32, gids []uint32) bool {
	return slices.Contains(o.UIDs, uid) || slices.ContainsFunc(gids, func(g uint32) bool { return slices.Contains(o.GIDs, g) })
}
