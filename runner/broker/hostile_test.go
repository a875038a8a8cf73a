package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/runner"
)

// talk sends bytes, and returns the refusal that comes back.
func (w *world) talk(send ...[]byte) *Refusal {
	w.t.Helper()
	conn := w.dial()
	defer conn.Close()
	for _, b := range send {
		conn.Write(b) // the broker may have closed already
	}
	return w.answer(conn)
}

func (w *world) dial() *net.UnixConn {
	w.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// answer reads up to the refusal.
func (w *world) answer(conn net.Conn) *Refusal {
	w.t.Helper()
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	in := frameReader{r: conn}
	for {
		k, body, err := in.next(kindNeed, kindStarted, kindStdout, kindStderr, kindResult, kindRefusal)
		if err != nil {
			w.t.Errorf("no answer: %v", err)
			return &Refusal{}
		}
		if k == kindRefusal {
			r := new(Refusal)
			if err := decode(body, r); err != nil {
				w.t.Error(err)
			}
			return r
		}
	}
}

func TestProtocol(t *testing.T) {
	good := func(t *testing.T) request {
		return request{Version: protocolVersion, Envelope: sign(t, newJob(), "alice", "bob")}
	}
	head := func(k kind, size uint32) []byte {
		return append(binary.BigEndian.AppendUint32(nil, size), byte(k))
	}
	tests := []struct {
		name string
		send func(t *testing.T) [][]byte
		says string
	}{
		{"HTTP", func(*testing.T) [][]byte { return [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")} }, "there is no frame of kind"},
		{"zeros", func(*testing.T) [][]byte { return [][]byte{make([]byte, 100)} }, "there is no frame of kind"},
		{"a frame of 4 GiB", func(*testing.T) [][]byte { return [][]byte{head(kindRequest, 1<<32-1)} }, "4294967295 bytes, the limit is 131072"},
		{"a frame one byte too long", func(*testing.T) [][]byte { return [][]byte{head(kindRequest, maxMessage+1)} }, "the limit is 131072"},
		{"content before a request", func(*testing.T) [][]byte { return [][]byte{appendFrame(nil, kindData, []byte("x"))} }, "is not due"},
		{"a frame that only the broker sends", func(*testing.T) [][]byte { return [][]byte{appendFrame(nil, kindResult, []byte("{}"))} }, "is not due"},
		{"no JSON", func(*testing.T) [][]byte { return [][]byte{appendFrame(nil, kindRequest, []byte("hello"))} }, "decode"},
		{"an empty object", func(*testing.T) [][]byte { return [][]byte{appendFrame(nil, kindRequest, []byte("{}"))} }, "decode"},
		{"an unknown field, such as a property of a unit", func(*testing.T) [][]byte {
			return [][]byte{message(t, kindRequest, map[string]any{"envelope": "eA==", "version": 1, "ExecStart": "/bin/sh"})}
		}, "decode"},
		{"a path instead of a digest", func(*testing.T) [][]byte {
			return [][]byte{message(t, kindRequest, map[string]any{"envelope": "eA==", "version": 1, "content": "../../etc/shadow"})}
		}, "decode"},
		{"a field in another case", func(*testing.T) [][]byte {
			return [][]byte{message(t, kindRequest, map[string]any{"Envelope": "eA==", "version": 1})}
		}, "decode"},
		{"a duplicate field", func(*testing.T) [][]byte {
			return [][]byte{appendFrame(nil, kindRequest, []byte(`{"envelope":"eA==","version":1,"version":1}`))}
		}, "decode"},
		{"spaces", func(*testing.T) [][]byte {
			return [][]byte{appendFrame(nil, kindRequest, []byte(`{"envelope":"eA==", "version":1}`))}
		}, "decode"},
		{"another version", func(t *testing.T) [][]byte {
			q := good(t)
			q.Version = 2
			return [][]byte{message(t, kindRequest, q)}
		}, "protocol version 2"},
		{"a negative timeout", func(t *testing.T) [][]byte {
			q := good(t)
			q.Timeout = -1
			return [][]byte{message(t, kindRequest, q)}
		}, "timeout -1"},
		{"two requests", func(t *testing.T) [][]byte {
			return [][]byte{message(t, kindRequest, good(t)), message(t, kindRequest, good(t))}
		}, "is not due"},
		{"content with an empty frame", func(t *testing.T) [][]byte {
			return [][]byte{message(t, kindRequest, good(t)), appendFrame(nil, kindData, nil)}
		}, "a data frame is empty"},
		{"an end with a body", func(t *testing.T) [][]byte {
			return [][]byte{message(t, kindRequest, good(t)), appendFrame(nil, kindEnd, []byte("x"))}
		}, "the limit is 0"},
	}
	w := newWorld(t, exits)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			r := w.talk(test.send(t)...)
			if r.Code != CodeProtocol || !strings.Contains(r.Message, test.says) {
				t.Errorf("got %+v, want code protocol and %q", r, test.says)
			}
		})
	}
	w.t = t
	t.Run("a request cut short", func(t *testing.T) {
		w.t = t
		conn := w.dial()
		defer conn.Close()
		frame := message(t, kindRequest, good(t))
		conn.Write(frame[:len(frame)/2])
		conn.CloseWrite()
		if r := w.answer(conn); r.Code != CodeProtocol {
			t.Errorf("got %+v", r)
		}
	})
	w.t = t
	if w.started() > 0 {
		t.Error("something ran")
	}
	w.alive()
}

// TestSpeakingWhileAJobRuns must end the job: who is served has nothing to say.
func TestSpeakingWhileAJobRuns(t *testing.T) {
	w := newWorld(t, func(ctx context.Context, _ runner.Spec) (runner.Result, error) {
		<-ctx.Done()
		return runner.Result{Reason: runner.ReasonCancelled}, nil
	})
	r := w.talk(
		message(t, kindRequest, request{Version: protocolVersion, Envelope: sign(t, newJob(), "alice", "bob")}),
		appendFrame(nil, kindData, module), appendFrame(nil, kindEnd, nil), []byte("more"),
	)
	if r.Code != CodeProtocol || !strings.Contains(r.Message, "while its job was running") {
		t.Errorf("got %+v", r)
	}
}

func TestSlowClients(t *testing.T) {
	w := newWorld(t, exits, func(o *Options) { o.RequestTime = 50 * time.Millisecond })
	frame := message(t, kindRequest, request{Version: protocolVersion, Envelope: sign(t, newJob(), "alice", "bob")})
	for _, test := range []struct {
		name string
		send []byte
	}{
		{"says nothing", nil},
		{"stops within the head of a frame", frame[:3]},
		{"stops within a request", frame[:len(frame)-1]},
		{"sends no content", frame},
		{"stops within content", append(append([]byte{}, frame...), appendFrame(nil, kindData, module)[:7]...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			if r := w.talk(test.send); r.Code != CodeTimeout {
				t.Errorf("got %+v", r)
			}
		})
	}
	t.Run("trickles", func(t *testing.T) {
		w.t = t
		conn := w.dial()
		defer conn.Close()
		var done sync.WaitGroup
		done.Go(func() { // a byte from time to time does not buy more time
			for _, b := range frame {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		if r := w.answer(conn); r.Code != CodeTimeout {
			t.Errorf("got %+v", r)
		}
		conn.Close()
		done.Wait()
	})
	w.t = t
}

// TestReaderThatStops does not read what its job prints.
func TestReaderThatStops(t *testing.T) {
	ended := make(chan error)
	w := newWorld(t, func(_ context.Context, spec runner.Spec) (runner.Result, error) {
		for {
			if _, err := spec.Stdout.Write(make([]byte, maxData)); err != nil {
				ended <- err
				return runner.Result{}, err
			}
		}
	}, func(o *Options) { o.WriteTime = 50 * time.Millisecond })
	conn := w.dial()
	defer conn.Close()
	conn.Write(message(t, kindRequest, request{Version: protocolVersion, Envelope: sign(t, newJob(), "alice", "bob")}))
	conn.Write(appendFrame(appendFrame(nil, kindData, module), kindEnd, nil))
	if err := <-ended; !isTimeout(err) {
		t.Errorf("got %v", err)
	}
}

func TestPeers(t *testing.T) {
	w := newWorld(t, exits, func(o *Options) { o.Users = []uint32{uint32(os.Geteuid()) + 4711} })
	_, err := w.run(sign(t, newJob(), "alice", "bob"))
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != CodePeer {
		t.Errorf("got %v", err)
	}
}

// TestOtherUser connects as a user who is not allowed, though the socket's mode would let it.
func TestOtherUser(t *testing.T) {
	if socket := os.Getenv("BROKER_TEST_SOCKET"); socket != "" {
		_, err := (&Client{Path: socket}).Run(t.Context(), Request{Envelope: []byte("x")})
		r, ok := errors.AsType[*Refusal](err)
		if !ok || r.Code != CodePeer || !strings.Contains(r.Message, "user 65534") {
			t.Fatalf("got %v", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("cannot run here: another user is needed, so root")
	}
	w := newWorld(t, exits)
	for p := filepath.Dir(w.socket); p != os.TempDir() && len(p) > 1; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(w.socket, 0o777); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(w.dir, "test")
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestOtherUser$")
	cmd.Dir = "/"
	cmd.Env = []string{"BROKER_TEST_SOCKET=" + w.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	w.alive()
}

// TestCrowd opens many more connections than there may be.
func TestCrowd(t *testing.T) {
	const crowd, most = 10_000, 8
	w := newWorld(t, exits, func(o *Options) { o.Connections, o.RequestTime = most, time.Minute })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	var held []*net.UnixConn
	busy := 0
	for range crowd {
		conn := w.dial()
		if len(held) < most {
			held = append(held, conn)
			continue
		}
		r := w.answer(conn)
		if r.Code != CodeBusy {
			t.Fatalf("got %+v", r)
		}
		busy++
		conn.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := runtime.NumGoroutine() - goroutines; n > 4*most {
		t.Errorf("%d goroutines more", n)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes of memory more", grown)
	}
	for _, conn := range held {
		conn.Close()
	}
	t.Logf("%d connections refused", busy)
	settle(w.server.connections)
	w.alive()
}

// settle waits until every token is back, by taking them all.
func settle(tokens chan struct{}) {
	for range cap(tokens) {
		tokens <- struct{}{}
	}
	for range cap(tokens) {
		<-tokens
	}
}

func TestBusy(t *testing.T) {
	release := make(chan struct{})
	running := make(chan struct{}, 1)
	w := newWorld(t, func(context.Context, runner.Spec) (runner.Result, error) {
		running <- struct{}{}
		<-release
		return runner.Result{Reason: runner.ReasonExit}, nil
	}, func(o *Options) { o.Jobs = 1 })
	envelope := sign(t, newJob(), "alice", "bob")
	done := make(chan error)
	go func() {
		_, err := w.run(envelope)
		done <- err
	}()
	<-running
	w.refused(envelope, CodeBusy)
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	settle(w.server.jobs)
	w.alive()
}

// TestStop ends the broker while a job runs: the job is ended in order, and its client told.
func TestStop(t *testing.T) {
	running := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, _ runner.Spec) (runner.Result, error) {
		running <- struct{}{}
		<-ctx.Done()
		return runner.Result{Reason: runner.ReasonCancelled}, nil
	})
	envelope := sign(t, newJob(), "alice", "bob")
	var resp Response
	var err error
	var client sync.WaitGroup
	client.Go(func() { resp, err = w.run(envelope) })
	<-running
	w.stop()
	client.Wait()
	if err != nil || resp.Result.Reason != runner.ReasonCancelled {
		t.Errorf("the client got %+v, %v", resp, err)
	}
}

// TestStateOfOthers refuses directories in which somebody else could put content.
func TestStateOfOthers(t *testing.T) {
	dir := t.TempDir()
	try := func(state string) error {
		s, err := New(t.Context(), Options{Runner: runFunc(exits), Files: Files{"a", "b"}, State: state, Users: []uint32{0}})
		if err == nil {
			s.Close()
		}
		return err
	}
	good := filepath.Join(dir, "good")
	if err := try(good); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(good, "content", "blobs"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := try(good); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("a directory that all may write to: %v", err)
	}
	linked := filepath.Join(dir, "linked")
	os.MkdirAll(linked, 0o755)
	if err := os.Symlink(t.TempDir(), filepath.Join(linked, "content")); err != nil {
		t.Fatal(err)
	}
	if err := try(linked); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a link: %v", err)
	}
}

func TestCacheForgetsWhatNobodyUses(t *testing.T) {
	c, err := openCache(t.TempDir(), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := openCache(c.dir, 10); err == nil {
		t.Error("two brokers share a directory")
	}
	add := func(text string) string {
		t.Helper()
		if _, err := c.receive(t.Context(), Blob, digest.Of([]byte(text)), manifest.Ref{}, strings.NewReader(text), 100); err != nil {
			t.Fatal(err)
		}
		name := objectName(Blob, digest.Of([]byte(text)))
		if _, ok := c.take(name); !ok {
			t.Fatal("it is not there")
		}
		return name
	}
	a, b := add("aaaaaaa"), add("bbbbbbb")
	c.release([]string{a})
	if _, ok := c.take(a); ok {
		t.Error("a is still there")
	}
	if path, ok := c.take(b); !ok {
		t.Error("b is gone although it is in use")
	} else if data, err := os.ReadFile(path); err != nil || string(data) != "bbbbbbb" {
		t.Errorf("b is %q, %v", data, err)
	}
	c.release([]string{b, b})
	c.close()
	again, err := openCache(c.dir, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if _, ok := again.take(b); !ok {
		t.Error("b is gone after a restart")
	}
	again.close()
	os.WriteFile(filepath.Join(c.dir, "boot"), []byte("another"), 0o600)
	third, err := openCache(c.dir, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer third.close()
	if _, ok := third.take(b); ok {
		t.Error("b is there although the machine was started again")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, kindData, []byte("abc")), kindEnd, nil))
	f.Add(appendFrame(nil, kindRequest, []byte(`{"envelope":"eA==","version":1}`)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 'D'})
	f.Add([]byte{0, 0, 0, 5, 'R', '{'})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := frameReader{r: bytes.NewReader(data)}
		var again []byte
		for {
			k, body, err := in.next(kindRequest, kindData, kindEnd, kindLack)
			if err != nil {
				if errors.Is(err, io.EOF) && !bytes.Equal(again, data) {
					t.Errorf("%q was read as %q", data, again)
				}
				break
			}
			again = appendFrame(again, k, body)
		}
		if cap(in.body) > maxData {
			t.Errorf("%d bytes were allocated", cap(in.body))
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"envelope":"eA==","version":1}`))
	f.Add([]byte(`{"envelope":"eA==","interpret":true,"timeout":1000,"version":1}`))
	f.Add([]byte(`{"envelope":null,"version":1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var q request
		if decode(body, &q) != nil || q.validate() != nil {
			return
		}
		frame, err := encode(kindRequest, q)
		if err != nil || !bytes.Equal(frame[headSize:], body) {
			t.Errorf("%q became %q, %v", body, frame, err)
		}
	})
}

// FuzzAdmit mutates envelopes. Whatever comes of it, nothing is admitted but the document that was signed.
func FuzzAdmit(f *testing.F) {
	good := sign(f, newJob(), "alice", "bob")
	want, err := manifest.ID(newJob())
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	files := Files{filepath.Join(dir, "root"), filepath.Join(dir, "policy")}
	for name, data := range map[string][]byte{files.TrustRoot: sign(f, newRoot(f), "carol"), files.Policy: sign(f, newPolicy(), "carol")} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	tr, err := files.load(now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(sign(f, newJob(), "alice"))
	f.Add([]byte(`{"payload":"","payloadType":"application/vnd.arch.network.job.v1+json","signatures":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := admit(data, tr, nil, now)
		if err == nil && a.id != want {
			t.Errorf("admitted %q", data)
		}
		if _, ok := errors.AsType[*Refusal](err); err != nil && !ok {
			t.Errorf("%v is no refusal", err)
		}
	})
}

// TestDescriptors sends many along with a request. They are not even received.
func TestDescriptors(t *testing.T) {
	w := newWorld(t, exits)
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	rights := syscall.UnixRights(int(null.Fd()), int(null.Fd()), int(null.Fd()), int(null.Fd()))
	before := count()
	conn := w.dial()
	defer conn.Close()
	frame := message(t, kindRequest, request{Version: protocolVersion, Envelope: []byte("x")})
	for i := range frame {
		if _, _, err := conn.WriteMsgUnix(frame[i:i+1], rights, nil); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.answer(conn); r.Code != CodeEnvelope {
		t.Errorf("got %+v", r)
	}
	if after := count(); after > before+2 { // the two ends of the connection
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	w.alive()
}
