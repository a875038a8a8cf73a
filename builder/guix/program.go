package guix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/builder/derivation"
	"arch.network/builder/nix/drv"
)

// MissingProgramError says that Guix is not there.
type MissingProgramError struct{ Err error }

func (e *MissingProgramError) Error() string {
	return "run guix: Guix is not installed, or not in PATH"
}

// Unwrap returns the cause.
func (e *MissingProgramError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *MissingProgramError) Hint() string {
	return "install Guix (on Debian: apt-get install guix); a Build manifest with steps needs none"
}

// CommandError says that guix failed.
type CommandError struct{ derivation.ExitError }

func (e *CommandError) Error() string {
	text := fmt.Sprintf("%s: guix failed with status %d", e.Act, e.Status)
	if line := e.message(); line != "" {
		text = fmt.Sprintf("%s: %s", e.Act, line)
	}
	return text
}

// message returns what Guix says is wrong, in one line: everything from its last error on, or its last line, where it shows a backtrace.
func (e *CommandError) message() string {
	text := strings.TrimSpace(e.Output)
	if i := strings.LastIndex(text, "error: "); i >= 0 {
		text = text[i+len("error: "):]
	} else {
		text = text[strings.LastIndexByte(text, '\n')+1:]
	}
	text = strings.Join(strings.Fields(text), " ")
	return strings.ToValidUTF8(text[:min(len(text), 600)], "")
}

// Hint tells the way out.
func (e *CommandError) Hint() string {
	for _, h := range []struct{ says, cure string }{
		{"unknown package", "`guix search WORD` finds packages; GUIX_PACKAGE_PATH names directories with others"},
		{"package not found for version", "`guix show NAME` lists the versions that there are; --channels FILE evaluates with the Guix of another time"},
		{"getaddrinfo", noNetwork},
		{"failed to connect", noDaemon},
		{"Unbound variable", "a file for Guix names the modules that it uses: (use-modules (gnu packages base) …)"},
		{"No such file", "name a file that is there"},
	} {
		if strings.Contains(e.Output, h.says) {
			return h.cure
		}
	}
	return ""
}

const (
	noNetwork = "Guix needs the network here: for what it builds from, for substitutes, or for channels; or bring what is needed into the store with `guix archive --import`"
	noDaemon  = "start the daemon (systemctl start guix-daemon; herd start guix-daemon), or name its socket in GUIX_DAEMON_SOCKET"
)

// run runs guix and returns what it printed.
func (b *Backend) run(ctx context.Context, act string, args ...string) ([]byte, error) {
	program, err := exec.LookPath("guix")
	if err != nil {
		return nil, &MissingProgramError{err}
	}
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "NO_COLOR=1", "GUILE_AUTO_COMPILE=0", "GUIX_DAEMON_SOCKET="+b.socket, "GUIX_BUILD_OPTIONS=")
	out, err := derivation.Run(ctx, act, c, nil)
	if exit, ok := errors.AsType[*derivation.ExitError](err); ok {
		return nil, &CommandError{*exit}
	}
	return out, err
}

// with puts the Guix of the channels in front of a command.
func (b *Backend) with(command ...string) []string {
	if b.options.Channels == "" {
		return command
	}
	return append([]string{"time-machine", "--channels=" + b.options.Channels, "--"}, command...)
}

// Evaluate finds the derivations that a target is: one, unless it is a manifest. They and their sources are then in the store.
func (b *Backend) Evaluate(ctx context.Context, t Target) ([]derivation.Evaluated, error) {
	if t.Path != "" {
		path, err := b.Deriver(ctx, t.Path)
		return []derivation.Evaluated{{Drv: path}}, err
	}
	for _, file := range []string{t.File, t.Manifest, b.options.Channels} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("evaluate %s: %w", t.Text, err)
		}
	}
	args := []string{"build", "--derivations", "--no-grafts"}
	if b.options.Offline {
		args = append(args, "--no-substitutes")
	}
	text, err := b.run(ctx, "evaluate "+t.Text, b.with(append(args, t.arguments()...)...)...)
	if err != nil {
		return nil, err
	}
	tools, err := b.channels(ctx)
	if err != nil {
		return nil, err
	}
	var list []derivation.Evaluated
	for path := range strings.FieldsSeq(string(text)) {
		if _, err := drv.Name(path); err != nil {
			return nil, fmt.Errorf("evaluate %s: %w", t.Text, err)
		}
		if !slices.ContainsFunc(list, func(e derivation.Evaluated) bool { return e.Drv == path }) {
			list = append(list, derivation.Evaluated{Drv: path, Tools: tools})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("evaluate %s: it is no derivation", t.Text)
	}
	return list, nil
}

// Deriver returns the derivation of a path, which may be one itself. That it is not known is a *derivation.UnknownDeriverError.
func (b *Backend) Deriver(ctx context.Context, path string) (string, error) {
	c, err := b.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	found := path
	if !strings.HasSuffix(path, drv.Suffix) {
		info, err := c.PathInfo(ctx, path)
		if err != nil {
			return "", err
		}
		found = info.Deriver
	}
	if found == "" {
		return "", &derivation.UnknownDeriverError{Path: path}
	}
	valid, err := c.IsValid(ctx, found)
	switch {
	case err != nil:
		return "", err
	case !valid && found == path:
		return "", fmt.Errorf("derivation %s is not in the store", path)
	case !valid:
		return "", &derivation.UnknownDeriverError{Path: path}
	}
	return found, nil
}

// channels returns the channels that Guix itself, which evaluates, is made of.
func (b *Backend) channels(ctx context.Context) ([]attest.ResourceDescriptor, error) {
	text, err := b.run(ctx, "find the channels of Guix", b.with("describe", "--format=json")...)
	if err != nil {
		return nil, err
	}
	return parseChannels(text)
}

// isCommit is the id of a commit of Git.
var isCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// parseChannels reads what guix describe --format=json prints (Guix: guix/scripts/describe.scm): a list of channels, or one that is not pulled.
// In place of a text that is not known there is false, so in Debian's package: a channel with no commit is left out.
func parseChannels(text []byte) ([]attest.ResourceDescriptor, error) {
	type channel struct {
		Name, URL, Commit any
	}
	var list []channel
	if strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
		list = make([]channel, 1)
		if err := json.Unmarshal(text, &list[0]); err != nil {
			return nil, fmt.Errorf("read channels of Guix: %w", err)
		}
	} else if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read channels of Guix: %w", err)
	}
	var found []attest.ResourceDescriptor
	for _, c := range list {
		name, _ := c.Name.(string)
		place, _ := c.URL.(string)
		commit, _ := c.Commit.(string)
		if commit == "" {
			continue
		}
		uri, err := url.Parse(place)
		if err != nil || name == "" || place == "" || !isCommit.MatchString(commit) {
			return nil, fmt.Errorf("read channels of Guix: %.100q at %.300q is none", name, place)
		}
		uri.User = nil // no secret goes into a receipt
		d := attest.ResourceDescriptor{Name: name, URI: "git+" + uri.String() + "@" + commit, Digest: map[string]string{"gitCommit": commit}}
		found = append(found, d)
	}
	slices.SortFunc(found, func(a, b attest.ResourceDescriptor) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}
