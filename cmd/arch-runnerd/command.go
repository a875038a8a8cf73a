package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"arch.network/cmd/config"
	"arch.network/runner/broker"
)

const help = `Arch-runnerd runs signed jobs for an agent that is not trusted to choose what runs.

It listens on a Unix socket (systemd's, or --socket) and answers only the users of --user. Each connection hands over one
job: a DSSE envelope. It runs if a quorum of those whom the policy lets issue jobs signed it (--trust, --policy), and the policy
allows what it asks for. Everything that the job pins is received over the socket and compared with its pin. How a
job is confined is derived from the signed document alone.

Both files are read for each job: a new policy counts at once. They must belong to root, and nobody else may write to them.

With --driver systemd every job is a transient unit; it needs to be uid 0, without any capability. With --driver namespace
it works without systemd, and is confined less: see arch doctor.

Every flag may also be a line of the configuration file (--config; a YAML mapping, read strictly: "pool: 4"), or an environment variable,
ARCH_RUNNERD_ and its name in capitals with _ for -. Flags go before variables, these before the file.

EXIT STATUS: 0 it was stopped, or --check-config found nothing; 1 error; 2 usage; 3 the trust root or the policy cannot be
relied on.`

// options are the flags.
type options struct {
	socket, state string
	files         broker.Files
	users, names  []string
	driver        string
	jobs          int
	pool          int
	connections   int
	content       int64
	cache         int64
	kept          int
	keep          time.Duration
	drain         time.Duration
	check         bool
	config        string
	man, show     bool
}

func newCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "arch-runnerd",
		Short: "Run signed jobs for an agent",
		Long:  help,
		Example: `  arch-runnerd --trust /etc/arch/trust.yaml --policy /etc/arch/policy.yaml
  arch-runnerd --check-config
  arch-runnerd --driver namespace --socket /tmp/broker/socket --state /tmp/broker/state --user alice --trust root.yaml --policy policy.yaml`,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.man {
				_, err := c.OutOrStdout().Write(book().Page(c))
				return err
			}
			settings, err := settle(c.Flags(), o.config)
			if err != nil {
				return err
			}
			if o.show {
				return config.Table(c.OutOrStdout(), settings, true)
			}
			if err := o.validate(); err != nil {
				return err
			}
			if o.check {
				return check(c, o)
			}
			return serve(c.Context(), o, slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%v", err) })
	c.CompletionOptions.DisableDefaultCmd = true
	f := c.Flags()
	f.StringVar(&o.socket, "socket", broker.DefaultSocket, "socket to make, unless systemd hands one over")
	f.StringVar(&o.state, "state", "/var/lib/arch-runnerd", "directory of received content and of what must be remembered")
	f.StringVar(&o.files.TrustRoot, "trust", "/etc/arch/trust.yaml", "trust root")
	f.StringVar(&o.files.Policy, "policy", "/etc/arch/policy.yaml", "policy, signed by the trust root's policy role")
	f.StringArrayVar(&o.users, "user", nil, "user who may ask, by name or number (repeatable; default: the owner of the socket, or archagent)")
	f.StringArrayVar(&o.names, "name", nil, "name of this node in a job's audience: its identity, or a pool (repeatable)")
	f.StringVar(&o.driver, "driver", "systemd", "what confines jobs: systemd or namespace")
	f.IntVar(&o.jobs, "jobs", 16, "jobs at one time")
	f.IntVar(&o.pool, "pool", 2, "units that are kept ready for modules; 0: each module gets a unit of its own")
	f.IntVar(&o.connections, "connections", 64, "connections at one time")
	f.Int64Var(&o.content, "content", 16<<30, "bytes that may be sent for one job")
	f.Int64Var(&o.cache, "cache", 16<<30, "bytes of content to keep that no job uses")
	f.IntVar(&o.kept, "kept", 256, "detached jobs to keep until their results are taken")
	f.DurationVar(&o.keep, "keep", 24*time.Hour, "how long a result that nobody takes is kept, from the job's start")
	f.DurationVar(&o.drain, "drain", 0, "how long running jobs may go on when the broker is stopped")
	f.BoolVar(&o.check, "check-config", false, "read and verify the trust root and the policy, and do nothing")
	f.StringVar(&o.config, "config", "", "configuration file (default: "+defaultConfig+", if there is one)")
	f.BoolVar(&o.show, "show-config", false, "print every setting with where it comes from, and do nothing")
	f.BoolVar(&o.man, "man", false, "print the manual page, and do nothing")
	return c
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%q is no flag; jobs come over the socket", args[0])
	}
	return nil
}

func (o options) validate() error {
	if slices.Contains([]string{o.socket, o.state, o.files.TrustRoot, o.files.Policy}, "") {
		return usage("a path is empty")
	}
	switch {
	case o.jobs < 1 || o.connections < 1 || o.content < 1 || o.cache < 1:
		return usage("--jobs, --connections, --content and --cache must be above zero")
	case o.pool < 0 || o.pool > 1024:
		return usage("--pool must be from 0 to 1024")
	case o.kept < 1 || o.keep <= 0:
		return usage("--kept and --keep must be above zero")
	case o.drain < 0:
		return usage("--drain must not be negative")
	case o.driver != "systemd" && o.driver != "namespace":
		return usage("--driver: %q is neither systemd nor namespace", o.driver)
	}
	return nil
}

// check is --check-config.
func check(c *cobra.Command, o options) error {
	name, version, err := o.files.Check(time.Now())
	if err != nil {
		return &statusError{err, exitTrust}
	}
	if _, err := lookup(o.users); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "policy %s version %d is good\n", name, version)
	return nil
}

// lookup turns names into user ids.
func lookup(names []string) ([]uint32, error) {
	var out []uint32
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			u, e := user.Lookup(name)
			if e != nil {
				return nil, usage("--user: %v", e)
			}
			if id, err = strconv.ParseUint(u.Uid, 10, 32); err != nil {
				return nil, usage("--user: %q has the id %q", name, u.Uid)
			}
		}
		out = append(out, uint32(id))
	}
	return out, nil
}

// defaultUser is who may ask where nobody is named and the socket is the broker's own.
const defaultUser = "archagent"

// listen opens the socket and says who may ask.
func listen(o options) (*net.UnixListener, []uint32, error) {
	users, err := lookup(o.users)
	if err != nil {
		return nil, nil, err
	}
	owner := os.Geteuid()
	switch {
	case len(users) > 0:
		owner = int(users[0])
	case os.Getenv("LISTEN_FDS") == "":
		if users, err = lookup([]string{defaultUser}); err != nil {
			return nil, nil, err
		}
		owner = int(users[0])
	}
	l, err := broker.Listen(o.socket, owner)
	if err != nil {
		return nil, nil, err
	}
	if len(users) == 0 {
		var st unix.Stat_t
		if err := unix.Stat(l.Addr().String(), &st); err != nil {
			l.Close()
			return nil, nil, fmt.Errorf("find the owner of the socket: %w", err)
		}
		users = []uint32{st.Uid}
	}
	return l, users, nil
}

// serve runs the broker until ctx ends.
func serve(ctx context.Context, o options, log *slog.Logger) (err error) {
	// Content is read by the users that jobs run as; what must be kept from others says so itself.
	unix.Umask(0o022)
	if _, _, err := o.files.Check(time.Now()); err != nil {
		// It may be repaired while the broker runs; until then every job is refused.
		log.WarnContext(ctx, "trust root or policy cannot be used", "error", err)
	}
	l, users, err := listen(o)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.MkdirAll(o.state, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	r, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	s, err := broker.New(ctx, broker.Options{
		Runner: r.modules, Checkpoint: r.checkpoint, Survivors: r.survivors, Files: o.files, State: o.state, Users: users, Names: o.names, Connections: o.connections, Jobs: o.jobs,
		Content: o.content, Cache: o.cache, Kept: o.kept, Keep: o.keep, Drain: o.drain, Log: log, Store: openStore, Devices: devices,
	})
	if err != nil {
		return err
	}
	if r.survivors == nil {
		defer func() { err = errors.Join(err, s.Close()) }()
	}
	ready, stop := context.WithCancel(ctx)
	defer stop()
	notified := make(chan error, 1)
	go func() { notified <- broker.Ready(ready, s.Alive) }()
	log.InfoContext(ctx, "broker ready", "socket", l.Addr().String(), "users", fmt.Sprint(users), "driver", o.driver)
	err = s.Serve(ctx, l)
	stop()
	return errors.Join(err, <-notified)
}
