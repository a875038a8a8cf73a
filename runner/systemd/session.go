package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

const (
	// orderTime is how long a unit waits for its order.
	orderTime = 30 * time.Second
	// keepOutcome is how long a unit keeps what came of its commands for a driver to come back.
	keepOutcome = time.Hour
)

// session is the unit's side of the control socket. Drivers come one after the other, each until its connection ends.
type session struct {
	listener *net.UnixListener
	owner    uint32 // the only user who may connect
	hello    hello
	orders   chan *received
	taken    chan struct{}           // closed when the outcome has arrived
	end      context.CancelCauseFunc // ends the commands
	printed  *backlog

	sending sync.Mutex // held while a frame is sent, so that frames stay whole and in order

	mu     sync.Mutex // guards the rest
	bound  bool       // the commands talk with the first driver, and end with him
	driver *net.UnixConn
	news   chan struct{}   // closed, and made anew, whenever anything of this changes
	over   bool            // nobody can come any more
	have   map[string]bool // outputs that a driver has, by name
	last   int             // the index of the one that the present driver has collected last; -1: none
	given  int             // outputs that some driver has collected
	lost   bool            // a later one does not have them
	torn   bool            // a later one does not have all that was printed
}

// received is an order with its descriptors.
type received struct {
	order
	exchange *os.File
}

// listen takes the control socket, which is descriptor 0.
func listen() (*session, error) {
	h, err := inspect()
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(os.Stdin)
	if err != nil {
		return nil, fmt.Errorf("use control socket: %w", err)
	}
	os.Stdin.Close()
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.New("use control socket: it is not a Unix socket")
	}
	return &session{
		listener: u, owner: uint32(os.Getuid()), hello: h,
		orders: make(chan *received, 1), taken: make(chan struct{}), news: make(chan struct{}), printed: newBacklog(), have: map[string]bool{}, last: -1,
	}, nil
}

// order waits for the order.
func (s *session) order() (*received, error) {
	select {
	case o := <-s.orders:
		return o, nil
	case <-time.After(orderTime):
		return nil, errors.New("no order has come")
	}
}

// serve accepts drivers until the socket fails.
func (s *session) serve() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			s.change(nil, true)
			return
		}
		if s.welcome(conn) == nil {
			s.listenTo(conn)
		}
		s.change(nil, false)
		conn.Close()
	}
}

// welcome checks who connects, and tells him what is in force here.
func (s *session) welcome(conn *net.UnixConn) error {
	uid, err := peer(conn)
	if err != nil {
		return err
	}
	if uid != s.owner {
		return fmt.Errorf("user %d is not the driver", uid)
	}
	return writeJSON(conn, frameHello, s.hello)
}

// peer returns the user of the other end.
func peer(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// listenTo reads what one driver says until he goes. The first one to come gives the order.
func (s *session) listenTo(conn *net.UnixConn) {
	for {
		var head [5]byte
		files, err := readHead(conn, head[:])
		if err != nil {
			return
		}
		kind, body, err := readBody(conn, head, maxOrder)
		if err != nil {
			return
		}
		switch kind {
		case frameOrder:
			o, err := receive(body, files)
			if err != nil {
				return
			}
			s.bind(o.Exchange)
			s.change(conn, false)
			select {
			case s.orders <- o:
			default:
				return // a second order
			}
		case frameAttach:
			var had runner.Kept
			if json.Unmarshal(body, &had) != nil {
				return
			}
			s.takeOver(conn, had)
		case frameKept:
			stream, n, err := parseKept(body)
			if err != nil || s.printed.keep(stream, n) != nil {
				return
			}
		case frameHave:
			var n int
			if json.Unmarshal(body, &n) != nil {
				return
			}
			s.mu.Lock()
			s.last = n
			s.wake()
			s.mu.Unlock()
		case frameTaken:
			close(s.taken)
			return
		default:
			return
		}
	}
}

// readHead reads the head of a frame with the descriptors that came along.
func readHead(conn *net.UnixConn, head []byte) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	_, err = io.ReadFull(conn, head[n:])
	return files, err
}

// receive makes an order of its frame.
func receive(body []byte, files []*os.File) (*received, error) {
	o := &received{}
	if err := json.Unmarshal(body, &o.order); err != nil {
		return nil, err
	}
	switch {
	case o.Exchange != (len(files) > 0) || len(files) > 1:
		return nil, errors.New("take order: the descriptors do not fit")
	case o.Exchange:
		o.exchange = files[0]
	}
	return o, nil
}

// bind says whether the commands end with the driver that gave the order.
func (s *session) bind(bound bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = bound
}

// errDriverGone is why commands are ended that talk with a driver.
var errDriverGone = errors.New("the driver is gone that they talk with")

// change notes who the driver is now.
func (s *session) change(conn *net.UnixConn, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.driver = conn
	s.over = s.over || over
	if s.bound && conn == nil {
		s.over = true
		s.end(errDriverGone)
	}
	if s.over {
		s.printed.end()
	}
	s.wake()
}

// wake tells those who wait that something has changed; the caller holds mu.
func (s *session) wake() {
	close(s.news)
	s.news = make(chan struct{})
}

// present waits for a driver other than not, until the deadline.
func (s *session) present(not *net.UnixConn, deadline <-chan time.Time) (*net.UnixConn, error) {
	for {
		s.mu.Lock()
		conn, news, over := s.driver, s.news, s.over
		s.mu.Unlock()
		if conn != nil && conn != not {
			return conn, nil
		}
		if over {
			return nil, errors.New("wait for driver: the control socket is gone")
		}
		select {
		case <-news:
		case <-deadline:
			return nil, errors.New("wait for driver: none has come back")
		}
	}
}

// takeOver makes conn the driver, one that has that much of the log already, and sends it the rest of what there is.
func (s *session) takeOver(conn *net.UnixConn, had runner.Kept) {
	s.sending.Lock()
	hole := s.printed.resume(had)
	s.mu.Lock()
	s.torn = s.torn || hole
	for _, o := range had.Outputs {
		s.have[o.Name] = true
	}
	s.last, s.lost = -1, s.lost || s.given > len(had.Outputs)
	s.mu.Unlock()
	s.change(conn, false)
	s.sending.Unlock()
	s.flush()
}

// flush sends what has been printed to the driver, if there is one.
func (s *session) flush() {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	conn := s.driver
	s.mu.Unlock()
	if conn != nil {
		s.sendLog(conn)
	}
}

// sendLog sends the log up to now; the caller holds sending. What does not arrive is sent to the next driver, unless this one had it.
func (s *session) sendLog(conn *net.UnixConn) error {
	for {
		stream, p := s.printed.next()
		if p == nil {
			return nil
		}
		if err := writeFrame(conn, frameLog, append([]byte{byte(stream)}, p...)); err != nil {
			return err
		}
	}
}

// send sends one frame to the driver, for whom it waits if there is none.
func (s *session) send(kind byte, body []byte) error {
	conn, err := s.present(nil, time.After(keepOutcome))
	if err != nil {
		return err
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	return writeFrame(conn, kind, body)
}

// sender sends whole frames to one driver.
type sender struct {
	s    *session
	conn *net.UnixConn
	err  error // of sending
}

func (w *sender) Write(frame []byte) (int, error) {
	w.s.sending.Lock()
	defer w.s.sending.Unlock()
	n, err := w.conn.Write(frame)
	if err != nil {
		w.err = err
	}
	return n, err
}

// collected returns nil when the driver that was sent an output has it, or, if that one has gone, the next one says that it had it; if
// that one says that it had not, runner.ErrAgain.
func (s *session) collected(conn *net.UnixConn, index int, name string) error {
	deadline := time.After(keepOutcome)
	for {
		s.mu.Lock()
		driver, news, has, had, over := s.driver, s.news, s.last == index, s.have[name], s.over
		s.mu.Unlock()
		switch {
		case driver == conn && has || driver != nil && driver != conn && had:
			s.mu.Lock()
			s.given++
			s.mu.Unlock()
			return nil
		case driver != nil && driver != conn:
			return runner.ErrAgain
		case over:
			return errors.New("wait for driver: the control socket is gone")
		}
		select {
		case <-news:
		case <-deadline:
			return errors.New("wait for driver: none has come back")
		}
	}
}

// deliver sends the outcome until a driver says that he has it.
func (s *session) deliver(out outcome) error {
	deadline := time.After(keepOutcome)
	var last *net.UnixConn
	for {
		conn, err := s.present(last, deadline)
		if err != nil {
			return err
		}
		last = conn
		if s.sendLast(conn, out) == nil && s.arrived(conn) {
			return nil
		}
	}
}

// sendLast sends what is left of the log, and the outcome.
func (s *session) sendLast(conn *net.UnixConn, out outcome) error {
	s.mu.Lock()
	switch {
	case s.torn:
		out.setError(errLogGone)
	case s.lost:
		out.setError(errOutputsGone)
	}
	s.mu.Unlock()
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.sendLog(conn); err != nil {
		return err
	}
	return writeJSON(conn, frameOutcome, out)
}

// errOutputsGone is the end of an execution of which nobody has all outputs.
var errOutputsGone = errors.New("outputs went to a driver that is gone")

// errLogGone is the end of an execution of which nobody has all that it printed.
var errLogGone = errors.New("what was printed went to a driver that is gone")

// arrived waits until the outcome is taken, or the driver has gone.
func (s *session) arrived(conn *net.UnixConn) bool {
	for {
		s.mu.Lock()
		driver, news := s.driver, s.news
		s.mu.Unlock()
		select {
		case <-s.taken:
			return true
		default:
		}
		if driver != conn {
			return false
		}
		select {
		case <-s.taken:
			return true
		case <-news:
		}
	}
}
