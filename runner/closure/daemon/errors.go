package daemon

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// Error is what a daemon says went wrong with a request. The connection can be used further.
type Error struct {
	Act     string   // what was asked, such as "build"
	Message string   // untrusted
	Traces  []string // what led there; untrusted; Guix has none
	Status  int      // exit status of Guix's commands for it; zero: unknown, as always with Nix
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: the daemon says: %s", e.Act, plain(e.Message))
}

// Hint tells the way out.
func (e *Error) Hint() string {
	for _, h := range []struct{ says, cure string }{
		{"lacks a valid signature", "have a key of the daemon's trusted-public-keys sign the object, or be one of its trusted-users"},
		{"lacks a signature by a trusted key", "have a key of the daemon's trusted-public-keys sign the object, or be one of its trusted-users"},
		{"trusted-users", "the daemon's administrator can add this user to trusted-users in nix.conf"},
		{"kernel namespaces", "the daemon's sandbox needs user namespaces: `arch doctor` says what keeps them from working"},
	} {
		if strings.Contains(e.Message, h.says) {
			return h.cure
		}
	}
	return ""
}

// colours are the escape sequences with which Nix colours its messages.
var colours = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`) })

// plain returns a text on one line and without what could move a terminal, at most 600 bytes of it.
func plain(s string) string {
	s = strings.Join(strings.Fields(colours().ReplaceAllString(s, "")), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), 600)], "")
}

// ProtocolError says that what a daemon sent is no answer. The connection is closed.
type ProtocolError struct {
	Reason string
	Err    error // of reading or parsing; or nil
}

func (e *ProtocolError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("daemon's answer: %s: %v", e.Reason, e.Err)
	}
	return "daemon's answer: " + e.Reason
}

// Unwrap returns the cause.
func (e *ProtocolError) Unwrap() error { return e.Err }

// UnsupportedError says that the protocol of a daemon has no such request.
type UnsupportedError struct {
	Act    string
	Daemon Kind
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: the daemon of %s has no such request", e.Act, e.Daemon)
}

// NotFoundError says that a store does not have an object.
type NotFoundError struct{ Path string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("the store has no %s", e.Path) }

// ChangedError says that an object is not what is said of it.
type ChangedError struct {
	Path      string
	Want, Got string // hash and size of the NAR
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("store object %s is %s, but must be %s", e.Path, e.Got, e.Want)
}
