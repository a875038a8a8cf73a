package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"arch.network/agent/control"
	"arch.network/agent/control/client"
	"arch.network/agent/control/dashboard"
)

// serve makes the node and answers for it until it is told to stop.
func serve(ctx context.Context, o options, w wiring, log *slog.Logger) (err error) {
	unix.Umask(0o077) // nobody else has a part in what the node keeps
	o, err = o.absolute()
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)

	listeners, err := listen(o)
	if err != nil {
		return err
	}
	closing := true
	defer func() {
		for _, l := range listeners {
			if closing {
				l.Close()
			}
		}
	}()
	n, err := w(ctx, o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	operators, err := o.whoOperates()
	if err != nil {
		return err
	}
	closing = false // the server closes them
	server := control.New(control.Options{
		Node: n, Known: n.known, Operators: operators, Reading: o.read, Hosts: o.hosts, Policy: n.policy, Ledger: n.ledger, Tiles: n.tiles, Witness: n.witness, Content: n.content, Archive: n.archive, Ready: n.ready, Log: log, Connections: connections(len(listeners)),
		Dashboard: dashboard.New(dashboard.Options{Node: n, Ledger: n.ledger, Policy: n.policy}),
	})
	for _, l := range listeners {
		log.InfoContext(ctx, "listening", "address", l.Addr().String())
	}
	if socket := socketOf(listeners); socket != client.DefaultSocket {
		log.InfoContext(ctx, "to talk to this node", "command", "export ARCH_AGENT="+socket+"; arch node status")
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return n.run(running) })
	g.Go(func() error { return server.Serve(running, listeners...) })
	g.Go(func() error {
		defer cancel()
		return lead(running, n, stop, reload, log)
	})
	return g.Wait()
}

// connections is how many may be open at one listener, of which there are so many: all of them leave half of the file descriptors to the node, whose
// ledger cannot live without. Zero: the default, which is less.
func connections(listeners int) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	share := limit.Cur / 2 / uint64(listeners)
	if share >= control.DefaultConnections {
		return 0
	}
	return max(1, int(share))
}

// socketOf is the path of the Unix socket among listeners, whoever has made it.
func socketOf(listeners []net.Listener) string {
	for _, l := range listeners {
		if l, ok := l.(*net.UnixListener); ok {
			return l.Addr().String()
		}
	}
	return ""
}

// lead tells systemd how the node is, and does what signals say, until the node is to stop. The watchdog is fed from here, and only while
// the node's own loop turns.
func lead(ctx context.Context, n *node, stop, reload <-chan os.Signal, log *slog.Logger) error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	var feed <-chan time.Time
	if interval > 0 {
		tick := time.NewTicker(interval / 3)
		defer tick.Stop()
		feed = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-feed:
			if n.alive() {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) // systemd ends a node of which it hears nothing
			}
		case <-reload:
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReloading)
			logged(ctx, log, n.reload(ctx))
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		case sig := <-stop:
			_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
			log.InfoContext(ctx, "stopping", "signal", sig.String())
			return nil // and so the node's run ends: it starts nothing new. What an operator wants to outlive this process, arch node drain says
		}
	}
}

// listen takes the sockets of systemd, or makes one, and opens the addresses of --listen.
func listen(o options) (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	local := false
	for _, l := range passed {
		if l == nil {
			return all, errors.New("take sockets from systemd: one of them is no stream socket")
		}
		_, isUnix := l.(*net.UnixListener)
		local = local || isUnix
		all = append(all, l)
	}
	if !local {
		l, err := listenUnix(o.socket)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	for _, address := range o.listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return all, fmt.Errorf("listen: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// listenUnix makes the socket. One that is left over from a process that died is replaced; one that is answered is not.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, &statusError{fmt.Errorf("make socket %s: somebody answers there already", path), exitError, "stop the other agent, or name another --socket"}
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if info, serr := os.Lstat(path); serr == nil && info.Mode()&fs.ModeSocket != 0 {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("make socket: %w", err)
			}
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	// Everybody may connect; the kernel says who it is.
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("make socket: %w", err)
	}
	return l, nil
}
