package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/agent/control"
	"arch.network/cmd/config"
	"arch.network/cmd/release"
)

const help = `Arch-node-agent takes signed jobs, admits what its policy allows, has them run confined, checks and keeps their results, and writes every
decision to its ledger. It answers on a Unix socket, to the machine's users, and on --listen over HTTP.

Over the socket, root, the user that the agent runs as and those of --operator and --operator-group may do everything. Everybody else,
and whoever comes over HTTP, changes nothing but by documents that somebody signed whom the trust root names; with --read they may read.

What confines jobs (--driver): broker hands them to arch-runnerd, which verifies them again and has systemd start them; systemd
starts units itself, as root; namespace needs neither. auto takes the first that is there. Without a policy the agent runs, says so, and
takes no jobs. Who starts it by hand, and is not root, needs no flag: its files then are in that user's own directories (XDG).

With --ledger-policy the witnesses that it names are asked to cosign the ledger as it grows; one that is away or refuses stops nothing, and
arch node status says so. With --witness-for the node is a witness of other ledgers.

The policy and the trust root are verified when they are read, at the start, when they change and on SIGHUP; one that does not verify
never replaces one that does. SIGTERM drains: nothing new is started, and what runs is left to its units.

Every flag may also be a line of the configuration file (--config; a YAML mapping, read strictly: "listen: [127.0.0.1:7340]"), or an
environment variable, ARCH_NODE_ and its name in capitals with _ for -. Flags go before variables, these before the file.

EXIT STATUS: 0 it was stopped, or --check-config found nothing; 1 error; 2 usage; 3 the trust root or the policy cannot be relied on.`

// options are the flags.
type options struct {
	socket, state, policy, trust, key string
	listen, hosts                     []string
	operators, groups                 []string
	read                              bool
	logFormat                         string
	drain                             time.Duration

	ledgerKey, origin   string
	ledgerPolicy        string
	witnessFor          string
	driver, broker      string
	names, content, cdi []string
	offline             bool
	slots               int
	adopt, check        bool
	config              string
	man, show           bool
}

func newCommand(w wiring) *cobra.Command {
	return newCommandAt(w, defaultPlaces(os.Geteuid(), os.Getenv))
}

// newCommandAt makes the command with the places that its flags have if they are not given.
func newCommandAt(w wiring, at places) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "arch-node-agent",
		Short: "Take, run and record signed jobs",
		Long:  help,
		Example: `  arch-node-agent --listen 127.0.0.1:7340 --policy /etc/arch/policy.yaml
  arch-node-agent --read --listen 192.0.2.1:7340 --host node.example
  arch-node-agent --socket ./node/socket --state ./node/state --policy policy.yaml --trust trust.yaml --key ./key`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("arch submit hands in a job", "%q is no flag", args[0])
			}
			return nil
		},
		Version:       release.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.man {
				// It tells of the service: whoever makes the page is somebody else.
				page := newCommandAt(w, defaultPlaces(0, func(string) string { return "" }))
				_, err := c.OutOrStdout().Write(book().Page(page))
				return err
			}
			settings, err := settle(c.Flags(), o.config, at.config)
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
			log, err := newLog(o.logFormat, c.ErrOrStderr())
			if err != nil {
				return err
			}
			return serve(c.Context(), o, w, log)
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("--help lists the flags", "%v", err) })
	c.CompletionOptions.DisableDefaultCmd = true
	f := c.Flags()
	f.StringVar(&o.socket, "socket", at.socket, "socket to make, unless systemd hands one over")
	f.StringArrayVar(&o.listen, "listen", nil, "address to answer on over HTTP, HOST:PORT (repeatable; default: none)")
	f.StringArrayVar(&o.hosts, "host", nil, "name by which the node is called over HTTP, beside its addresses (repeatable)")
	f.BoolVar(&o.read, "read", false, "let everybody read who can connect")
	f.StringArrayVar(&o.operators, "operator", nil, "user of this machine who operates the node, by name or number (repeatable)")
	f.StringArrayVar(&o.groups, "operator-group", nil, "group whose members operate the node, by name or number (repeatable)")
	f.StringVar(&o.policy, "policy", at.policy, "policy, signed by the trust root's policy role")
	f.StringVar(&o.trust, "trust", at.trust, "trust root")
	f.StringVar(&o.state, "state", at.state, "directory of everything that must be remembered")
	f.StringVar(&o.key, "key", "", "key of this node: a file, credential:NAME of $CREDENTIALS_DIRECTORY, or exec:COMMAND (default: credential:key if there is one, else a file in the state directory, which is made)")
	f.StringVar(&o.ledgerKey, "ledger-key", "", "file of the keys that sign the ledger (default: one in the state directory, which is made)")
	f.StringVar(&o.origin, "origin", "", "name of the ledger, for when its keys are made (default: node/ and the node's key)")
	f.StringVar(&o.ledgerPolicy, "ledger-policy", "", "how others verify this node's ledger (C2SP tlog-policy): the witnesses that it names are asked to cosign it (default: nobody is asked)")
	f.StringVar(&o.witnessFor, "witness-for", "", "ledgers of others that this node cosigns (C2SP tlog-policy), at its address and /witness (default: none)")
	f.StringVar(&o.driver, "driver", driverAuto, "what confines jobs: "+strings.Join(driverNames(), ", "))
	f.StringVar(&o.broker, "broker", "", "socket of arch-runnerd (default: its usual one)")
	f.StringArrayVar(&o.names, "name", nil, "name of this node in a job's audience, beside its identity: a pool, a host name (repeatable)")
	f.StringArrayVar(&o.content, "content", nil, "directory where what jobs pin is looked for before it is fetched: an archive, or files under the names of their references (repeatable)")
	f.BoolVar(&o.offline, "offline", false, "fetch nothing: what jobs pin must be in the store or in --content")
	f.StringArrayVar(&o.cdi, "cdi", nil, "directory of Container Device Interface specifications (repeatable; default: the host's)")
	f.IntVar(&o.slots, "slots", 0, "executions at one time, as far as their resources fit (default: four for each processor)")
	f.BoolVar(&o.adopt, "adopt-ledger", false, "begin the record of what was signed with the ledger as it stands: once, after it was moved on purpose")
	f.BoolVar(&o.check, "check-config", false, "read and verify the trust root and the policy, and do nothing")
	f.StringVar(&o.logFormat, "log-format", "text", "text, json or journal")
	f.DurationVar(&o.drain, "drain", 10*time.Second, "how long to wait, when stopped, for what is about to be decided")
	f.StringVar(&o.config, "config", "", "configuration file (default: "+at.config+", if there is one)")
	f.BoolVar(&o.show, "show-config", false, "print every setting with where it comes from, and do nothing")
	f.BoolVar(&o.man, "man", false, "print the manual page, and do nothing")
	return c
}

func (o options) validate() error {
	if slices.Contains([]string{o.socket, o.state, o.policy, o.trust}, "") {
		return usage("", "a path is empty")
	}
	switch {
	case o.slots < 0 || o.slots > 4096:
		return usage("", "--slots must be from 0 to 4096")
	case !slices.Contains(driverNames(), o.driver):
		return usage("it is one of "+strings.Join(driverNames(), ", "), "--driver: there is no driver %q", o.driver)
	}
	if o.drain < 0 {
		return usage("", "--drain must not be negative")
	}
	for _, l := range o.listen {
		host, port, err := net.SplitHostPort(l)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" && n == 0 {
			return usage("write it like 127.0.0.1:7340 or [::1]:7340", "--listen: %q is no address", l)
		}
	}
	for _, h := range o.hosts {
		if h == "" || strings.ContainsAny(h, ":/ *") {
			return usage("write the name alone, such as node.example", "--host: %q is no name", h)
		}
	}
	if !slices.Contains(logFormats, o.logFormat) {
		return usage("it is one of "+strings.Join(logFormats, ", "), "--log-format: there is no format %q", o.logFormat)
	}
	_, err := o.whoOperates()
	return err
}

// whoOperates turns names into numbers.
func (o options) whoOperates() (control.Operators, error) {
	var out control.Operators
	for _, name := range o.operators {
		id, err := numberOf(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if err != nil {
			return out, usage("", "--operator: %v", err)
		}
		out.UIDs = append(out.UIDs, id)
	}
	for _, name := range o.groups {
		id, err := numberOf(name, func() (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if err != nil {
			return out, usage("", "--operator-group: %v", err)
		}
		out.GIDs = append(out.GIDs, id)
	}
	return out, nil
}

func numberOf(name string, look func() (string, error)) (uint32, error) {
	text := name
	if _, err := strconv.ParseUint(text, 10, 32); err != nil {
		if text, err = look(); err != nil {
			return 0, err
		}
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q has the id %q", name, text)
	}
	return uint32(id), nil
}

// absolute makes the paths of flags independent of the working directory.
func (o options) absolute() (options, error) {
	for _, p := range []*string{&o.socket, &o.state, &o.policy, &o.trust, &o.ledgerKey, &o.ledgerPolicy, &o.witnessFor} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return o, err
		}
		*p = abs
	}
	return o, nil
}

// logged is what a reload says.
func logged(ctx context.Context, log *slog.Logger, err error) {
	if err != nil {
		log.ErrorContext(ctx, "reload refused", "error", err.Error())
		return
	}
	log.InfoContext(ctx, "reloaded")
}
