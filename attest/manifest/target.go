package manifest

import (
	"fmt"
	"path"
	"strings"
)

// Target says where an output goes: a pinned reference, which the output must turn out to be, or a destination, which is
// "store" (kept by the node), "ipfs" (published; the receipt has the CID), "oci:HOST/REPOSITORY[:TAG]" (pushed) or
// "file:///PATH" (written there; needs the capability write:/PATH). Exactly one of the fields is set.
type Target struct {
	Ref         Ref
	Destination string
}

// ParseTarget reads a Target. A reference that is neither pinned nor a destination is an *UnpinnedError.
func ParseTarget(s string) (Target, error) {
	switch {
	case s == "store", s == "ipfs":
		return Target{Destination: s}, nil
	case strings.HasPrefix(s, "oci:") && !strings.Contains(s, "@"):
		return parsePushTarget(s)
	case strings.HasPrefix(s, "file:///") && !strings.Contains(s, "#"):
		return parseFileTarget(s)
	}
	ref, err := ParseRef(s)
	return Target{Ref: ref}, err
}

func parsePushTarget(s string) (Target, error) {
	if err := refText(s); err != nil {
		return Target{}, err
	}
	m := ociRef().FindStringSubmatch(strings.TrimPrefix(s, "oci:"))
	name, tag := m[1], m[2]
	host, _, _ := strings.Cut(name, "/")
	if !ociName().MatchString(name) || (host != "localhost" && !strings.ContainsAny(host, ".:")) || (tag != "" && !ociTag.match(tag)) || strings.HasSuffix(s, ":") {
		return Target{}, &refError{s, "not oci:HOST/REPOSITORY[:TAG]", ""}
	}
	return Target{Destination: s}, nil
}

func parseFileTarget(s string) (Target, error) {
	if err := refText(s); err != nil {
		return Target{}, err
	}
	if err := plainURL(s, s); err != nil {
		return Target{}, err
	}
	if p := strings.TrimPrefix(s, "file://"); path.Clean(p) != p || p == "/" || strings.ContainsAny(p, "?%") {
		return Target{}, &refError{s, "not file:///ABSOLUTE/PATH of a clean path", ""}
	}
	return Target{Destination: s}, nil
}

// String returns the target as ParseTarget reads it.
func (t Target) String() string {
	if t.Destination != "" {
		return t.Destination
	}
	return t.Ref.String()
}

// IsZero reports whether the target names nothing.
func (t Target) IsZero() bool { return t == Target{} }

// Validate checks that t is something that ParseTarget returns.
func (t Target) Validate() error {
	if t.Destination != "" && !t.Ref.IsZero() {
		return fmt.Errorf("target has both a reference and a destination %q", t.Destination)
	}
	again, err := ParseTarget(t.String())
	if err != nil {
		return err
	}
	if again != t {
		return &refError{t.String(), "it has another spelling than its parts say", ""}
	}
	return nil
}

// MarshalText returns String.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is ParseTarget.
func (t *Target) UnmarshalText(text []byte) error {
	parsed, err := ParseTarget(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}
