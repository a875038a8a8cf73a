package daemon

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Mode says how to build. The numbers are the protocol's.
type Mode uint64

// The modes.
const (
	Normal Mode = 0 // what is not there yet
	Check  Mode = 2 // what is there already once more, and compare: that it differs is an *Error. Nix does not compare what is named by its content
)

// Build has the daemon build all outputs of derivations that the store has, with what they need, or fetch objects that are given by their own
// path. What builders print goes to the Client's Log.
func (c *Client) Build(ctx context.Context, paths []string, mode Mode) error {
	wants := make([]string, 0, len(paths))
	for _, path := range paths {
		if err := checkPath(path, c.in.dir); err != nil {
			return err
		}
		if c.kind == Nix && strings.HasSuffix(path, ".drv") {
			path += "!*"
		}
		wants = append(wants, path)
	}
	return c.do(ctx, request{
		act: "build", op: opBuildPaths,
		args:  func(e encoder) { e.list(wants); e.number(uint64(mode)) },
		reply: c.done,
	})
}

// done reads the 1 that stands for no result.
func (c *Client) done() error {
	n, err := c.in.number()
	if err == nil && n != 1 {
		err = &ProtocolError{Reason: fmt.Sprintf("in place of no result it sends %d", n)}
	}
	return err
}

// Options are settings of a connection. As long as SetOptions was not called, those of the daemon's configuration hold; then all of these do.
// The zero value builds one thing at a time with all processors, and fetches nothing.
type Options struct {
	KeepFailed bool              // leave the directories of failed builds
	KeepGoing  bool              // build on what does not need what failed
	Fallback   bool              // build what cannot be fetched
	Substitute bool              // fetch what others have built
	Jobs       int               // builds at a time; zero: 1
	Cores      int               // processors for each; zero: all
	MaxSilence time.Duration     // after which a build is ended, in whole seconds; zero: never
	Settings   map[string]string // further ones, by the daemon's names; it ignores those that it does not let this user set
}

// SetOptions sets how the daemon works for this connection.
func (c *Client) SetOptions(ctx context.Context, o Options) error {
	if o.Jobs < 0 || o.Cores < 0 || o.MaxSilence < 0 || max(o.Jobs, o.Cores) > math.MaxInt32 {
		return fmt.Errorf("set options: a number is negative or more than %d", math.MaxInt32)
	}
	return c.do(ctx, request{
		act: "set options", op: opSetOptions,
		args: func(e encoder) {
			e.flag(o.KeepFailed)
			e.flag(o.KeepGoing)
			e.flag(o.Fallback)
			e.number(verbosity)
			e.number(uint64(max(o.Jobs, 1)))
			e.number(uint64(o.MaxSilence / time.Second))
			e.flag(true) // Guix: use the other machines that are configured; Nix takes no notice
			e.number(0)  // print what builders print
			e.number(0)  // once the kind of log
			e.number(0)  // Guix: no trace of builds for programs
			e.number(uint64(o.Cores))
			e.flag(o.Substitute)
			e.number(uint64(len(o.Settings)))
			for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
				e.text(name)
				e.text(o.Settings[name])
			}
		},
	})
}

// verbosity is what is reported: what is begun, and what is wrong (Nix: lvlInfo of logging.hh; Guix has one level less below it).
const verbosity = 3
