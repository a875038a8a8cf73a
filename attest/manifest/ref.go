package manifest

import (
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/mod/module"

	"arch.network/attest/digest"
)

// RefScheme is the kind of a Ref.
type RefScheme string

// The schemes of references, with their grammar.
const (
	RefOCI   RefScheme = "oci"   // [oci:]HOST/REPOSITORY[:TAG]@sha256:HEX; image-spec descriptor digest
	RefStore RefScheme = "store" // /nix/store/HASH-NAME#sha256-BASE64 or /gnu/store/…: NAR hash
	RefCID   RefScheme = "ipfs"  // ipfs://CID[/PATH]; CIDv1 in base 32, sha2-256, of a raw, dag-pb or dag-cbor block
	RefURL   RefScheme = "url"   // http://, https:// or file:// … #sha256-BASE64: hash of the bytes
	RefModel RefScheme = "model" // SCHEME://NAME@sha256:HEX, such as onnx://…: hash of the bytes
	RefGo    RefScheme = "go"    // go:MODULE@VERSION#h1:BASE64; golang.org/x/mod/sumdb/dirhash Hash1
	RefGit   RefScheme = "git"   // git+https://…@COMMIT#sha256-BASE64: commit id (40 or 64 hex digits) and NAR hash of its tree
	RefTree  RefScheme = "tree"  // tree:NAME#sha256-BASE64: a tree by NAR hash, wherever it may be found
)

// Ref is a pinned reference: it says where something may be found and which bytes it must be.
// The zero Ref refers to nothing. ParseRef makes all others; of each Ref there is one spelling, which String returns.
type Ref struct {
	Scheme   RefScheme
	Location string        // the reference without its pin: URL, repository, module path, store path, CID, name
	Version  string        // RefGo: module version; RefGit: commit; RefOCI: tag, which is only a remark
	Digest   digest.SHA256 // what the pin says; what it is the hash of depends on Scheme
}

// maxRef bounds the text of a reference; long query strings of download URLs fit.
const maxRef = 2048

// UnpinnedError says that a reference does not fix the bytes it refers to.
type UnpinnedError struct {
	Ref    string
	Reason string // such as "it ends in a tag, which may move"
}

func (e *UnpinnedError) Error() string {
	return fmt.Sprintf("reference %q is no pin: %s", e.Ref, e.Reason)
}

// Hint names the command that pins.
func (e *UnpinnedError) Hint() string {
	return "run `arch pin FILE` to resolve it and write the pin into the file"
}

// refError says that a text is no reference at all.
type refError struct {
	ref, msg, cure string
}

func (e *refError) Error() string { return fmt.Sprintf("reference %q: %s", e.ref, e.msg) }
func (e *refError) Hint() string  { return e.cure }

const refCure = "write HOST/REPOSITORY@sha256:…, https://…#sha256-…, go:MODULE@VERSION#h1:…, git+https://…@COMMIT#sha256-…, /nix/store/…#sha256-…, ipfs://CID, SCHEME://NAME@sha256:… or tree:NAME#sha256-…"

// ParseRef reads a pinned reference in the grammar of RefScheme. The error is an *UnpinnedError if s says where
// something is but not which bytes it must be.
func ParseRef(s string) (Ref, error) {
	if err := refText(s); err != nil {
		return Ref{}, err
	}
	ref, err := parseRef(s)
	if err == nil && ref.Digest.IsZero() {
		return Ref{}, &refError{s, "its digest is zero, which names nothing", ""}
	}
	return ref, err
}

// parseRef finds the scheme.
func parseRef(s string) (Ref, error) {
	scheme, rest, hasScheme := strings.Cut(s, ":")
	switch {
	case strings.HasPrefix(s, "/"):
		return parseStoreRef(s)
	case !hasScheme:
		return parseOCIRef(s, s)
	case scheme == "oci":
		return parseOCIRef(s, rest)
	case scheme == "go":
		return parseGoRef(s, rest)
	case scheme == "tree":
		return parseTreeRef(s, rest)
	case !strings.HasPrefix(rest, "//"):
		return parseOCIRef(s, s) // HOST:PORT/… or HOST/…:TAG
	}
	switch scheme {
	case "http", "https", "file":
		return parseURLRef(s)
	case "git+https", "git+http", "git+file":
		return parseGitRef(s)
	case "ipfs":
		return parseCIDRef(s, rest[2:])
	case "ipns":
		return Ref{}, &UnpinnedError{s, "an IPNS name may move"}
	case "docker", "containers", "docker-archive":
		return Ref{}, &refError{s, "unknown scheme " + scheme, "leave the scheme out: HOST/REPOSITORY@sha256:…"}
	}
	return parseModelRef(s, scheme)
}

// refText refuses what no reference of any scheme may hold.
func refText(s string) error {
	switch {
	case s == "":
		return &refError{s, "empty", refCure}
	case len(s) > maxRef:
		return &refError{shorten(s), fmt.Sprintf("%d bytes; at most %d are allowed", len(s), maxRef), ""}
	case strings.Contains(s, "…") || strings.HasSuffix(s, "..."):
		return &UnpinnedError{s, "it is abbreviated"}
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return &refError{s, fmt.Sprintf("character %q is not allowed", c), "percent-encode it"}
		}
	}
	return nil
}

var (
	ociName  = compiled(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[1-9][0-9]{0,4})?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+$`)
	ociTag   = bounded(upTo(128), `^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`, "")
	ociRef   = compiled(`^(.*?)(?::([^:/@]*))?$`)
	modelRef = compiled(`^[a-z][a-z0-9+.-]*://[A-Za-z0-9][A-Za-z0-9._~/:+%-]*$`)
	storeRef = bounded(upTo(255), `^/(?:nix|gnu)/store/[0-9abcdfghijklmnpqrsvwxyz]{32}-[A-Za-z0-9+_?=-][A-Za-z0-9+._?=-]{0,210}$`, "")
	commitID = compiled(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)
)

// parseOCIRef follows the grammar of the distribution specification, with the registry always spelled out.
func parseOCIRef(s, text string) (Ref, error) {
	name, pin, pinned := strings.Cut(text, "@")
	m := ociRef().FindStringSubmatch(name)
	ref := Ref{Scheme: RefOCI, Location: m[1], Version: m[2]}
	host, _, _ := strings.Cut(ref.Location, "/")
	switch {
	case name != ref.Location && !ociTag.match(ref.Version):
		return Ref{}, &refError{s, fmt.Sprintf("%q is no tag", ref.Version), ""}
	case !ociName().MatchString(ref.Location):
		return Ref{}, &refError{s, "not a reference of any known scheme", refCure}
	case host != "localhost" && !strings.ContainsAny(host, ".:"):
		return Ref{}, &refError{s, fmt.Sprintf("%q is no registry", host), "write the registry, too, such as docker.io/library/debian@sha256:…"}
	case !pinned && ref.Version != "":
		return Ref{}, &UnpinnedError{s, fmt.Sprintf("%q is a tag, which may move", ref.Version)}
	case !pinned:
		return Ref{}, &UnpinnedError{s, "it has no digest"}
	}
	return pinOCI(s, ref, pin)
}

// pinOCI completes ref by an OCI digest.
func pinOCI(s string, ref Ref, pin string) (Ref, error) {
	hex, ok := strings.CutPrefix(pin, "sha256:")
	if !ok {
		return Ref{}, &refError{s, "its pin is not sha256:HEX", "pin it by SHA-256: `arch pin FILE` does"}
	}
	d, err := digest.ParseHex(hex)
	if err != nil {
		return Ref{}, &refError{s, digestReason(err), "a pin has 64 lower-case hexadecimal digits"}
	}
	ref.Digest = d
	return ref, nil
}

// cutSRI splits s at its fragment, which must be a hash in SRI form.
func cutSRI(s string) (string, digest.SHA256, error) {
	loc, pin, ok := strings.Cut(s, "#")
	if !ok || pin == "" {
		return "", digest.SHA256{}, &UnpinnedError{s, "it has no #sha256-… at its end"}
	}
	if !strings.HasPrefix(pin, "sha256-") {
		return "", digest.SHA256{}, &refError{s, "its pin is not sha256-BASE64", "pin it by SHA-256: `arch pin FILE` does"}
	}
	d, err := digest.ParseSRI(pin)
	if err != nil {
		return "", digest.SHA256{}, &refError{s, digestReason(err), "a pin is sha256- and 44 characters of base64"}
	}
	return loc, d, nil
}

// digestReason returns what is wrong with a digest, without the digest: the reference is quoted already.
func digestReason(err error) string {
	if e, ok := errors.AsType[*digest.SyntaxError](err); ok {
		return "its digest is wrong: " + e.Reason
	}
	return err.Error()
}

func parseStoreRef(s string) (Ref, error) {
	if path, _, _ := strings.Cut(s, "#"); !storeRef.match(path) {
		return Ref{}, &refError{s, "not a path directly below /nix/store or /gnu/store", "write the whole store object: /nix/store/HASH-NAME#sha256-…"}
	}
	loc, d, err := cutSRI(s)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Scheme: RefStore, Location: loc, Digest: d}, nil
}

func parseTreeRef(s, rest string) (Ref, error) {
	if name, _, _ := strings.Cut(rest, "#"); !patterns["filename"].match(name) {
		return Ref{}, &refError{s, "not tree:NAME#sha256-…", "a name is made of letters, digits, '.', '_', '+' and '-'"}
	}
	loc, d, err := cutSRI(s)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Scheme: RefTree, Location: strings.TrimPrefix(loc, "tree:"), Digest: d}, nil
}

func parseURLRef(s string) (Ref, error) {
	loc, d, err := cutSRI(s)
	if err != nil {
		return Ref{}, err
	}
	if err := plainURL(s, loc); err != nil {
		return Ref{}, err
	}
	return Ref{Scheme: RefURL, Location: loc, Digest: d}, nil
}

// plainURL refuses URLs that carry credentials, lack a host, or that net/url reads as something else than written.
func plainURL(ref, loc string) error {
	u, err := url.Parse(loc)
	switch {
	case err != nil:
		return &refError{ref, "not a URL", "percent-encode unusual characters"}
	case u.User != nil:
		return &refError{redactUser(ref), "a URL must not carry a user name or password", "configure credentials where the fetch happens"}
	case strings.HasSuffix(u.Scheme, "file"):
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return &refError{ref, "not file:///ABSOLUTE/PATH", ""}
		}
	case u.Hostname() == "":
		return &refError{ref, "the URL names no host", ""}
	}
	if u.String() != loc {
		return &refError{ref, "the URL is not in its normal spelling", fmt.Sprintf("write %q", u.String())}
	}
	return nil
}

// redactUser leaves the user part of a URL out, which may be a password.
func redactUser(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			rest = rest[at+1:]
		}
	} else if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + "://…@" + rest
}

func parseGitRef(s string) (Ref, error) {
	path, _, _ := strings.Cut(s, "#")
	at := strings.LastIndexByte(path, '@')
	if at < 0 || !commitID().MatchString(path[at+1:]) {
		if _, sri, _ := strings.Cut(s, "#"); at < 0 || sri == "" {
			return Ref{}, &UnpinnedError{s, "it has no commit id"}
		}
		return Ref{}, &UnpinnedError{s, fmt.Sprintf("%q is no complete commit id", path[at+1:])}
	}
	loc, d, err := cutSRI(s)
	if err != nil {
		return Ref{}, err
	}
	if err := plainURL(s, loc[:at]); err != nil {
		return Ref{}, err
	}
	return Ref{Scheme: RefGit, Location: loc[:at], Version: loc[at+1:], Digest: d}, nil
}

func parseGoRef(s, rest string) (Ref, error) {
	mod, pin, pinned := strings.Cut(rest, "#")
	path, version, ok := strings.Cut(mod, "@")
	if !ok || version == "latest" {
		return Ref{}, &UnpinnedError{s, "it has no module version"}
	}
	if err := module.Check(path, version); err != nil {
		return Ref{}, &refError{s, err.Error(), "write go:MODULE@vX.Y.Z#h1:…, as in go.sum"}
	}
	if module.CanonicalVersion(version) != version {
		return Ref{}, &refError{s, fmt.Sprintf("%q is no complete version", version), "write go:MODULE@vX.Y.Z#h1:…, as in go.sum"}
	}
	if !pinned || pin == "" {
		return Ref{}, &UnpinnedError{s, "it has no #h1:… at its end"}
	}
	sum, ok := strings.CutPrefix(pin, "h1:")
	raw, err := base64.StdEncoding.Strict().DecodeString(sum)
	if !ok || err != nil || len(raw) != len(digest.SHA256{}) {
		return Ref{}, &refError{s, "its pin is not h1: and 44 characters of base64", "copy it from go.sum (not the /go.mod line)"}
	}
	return Ref{Scheme: RefGo, Location: path, Version: version, Digest: digest.SHA256(raw)}, nil
}

func parseModelRef(s, scheme string) (Ref, error) {
	loc, pin, pinned := strings.Cut(s, "@")
	switch {
	case strings.HasPrefix(scheme, "git"), strings.HasSuffix(scheme, "http"), strings.HasSuffix(scheme, "https"), strings.HasSuffix(scheme, "file"):
		return Ref{}, &refError{s, "unknown scheme " + scheme, refCure}
	case !modelRef().MatchString(loc):
		return Ref{}, &refError{s, "not a reference of any known scheme", refCure}
	case !pinned:
		return Ref{}, &UnpinnedError{s, "it has no @sha256:… at its end"}
	}
	return pinOCI(s, Ref{Scheme: RefModel, Location: loc}, pin)
}

// Multicodec codes that a CID may name: https://github.com/multiformats/multicodec/blob/master/table.csv
const (
	codecRaw     = 0x55
	codecDagPB   = 0x70
	codecDagCBOR = 0x71
)

var cidBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// parseCIDRef reads CID[/PATH]. Unlike digest.ParseCID it also takes blocks that are nodes of a graph (dag-pb, dag-cbor),
// whose digest is that of the node and, through it, of everything below.
func parseCIDRef(s, rest string) (Ref, error) {
	cid, path, hasPath := strings.Cut(rest, "/")
	raw, err := cidBase32.DecodeString(strings.TrimPrefix(cid, "b"))
	switch {
	case strings.HasPrefix(cid, "Qm"):
		return Ref{}, &refError{s, "a CID of version 0 is not accepted", "write its version 1 form: `ipfs cid base32 " + cid + "`"}
	case err != nil || !strings.HasPrefix(cid, "b") || "b"+cidBase32.EncodeToString(raw) != cid:
		return Ref{}, &refError{s, fmt.Sprintf("%q is no CID of version 1 in base 32", cid), "a CID begins with b and has lower-case letters and digits 2 to 7"}
	case len(raw) != 36 || raw[0] != 1 || raw[2] != 0x12 || raw[3] != 32:
		return Ref{}, &refError{s, "the CID is not of version 1 with a SHA-256 hash", ""}
	case raw[1] != codecRaw && raw[1] != codecDagPB && raw[1] != codecDagCBOR:
		return Ref{}, &refError{s, fmt.Sprintf("the CID's codec 0x%x is not raw, dag-pb or dag-cbor", raw[1]), ""}
	case hasPath && (raw[1] == codecRaw || !cleanRelative(path)):
		return Ref{}, &refError{s, fmt.Sprintf("the path %q cannot be below this CID", path), ""}
	}
	return Ref{Scheme: RefCID, Location: rest, Digest: digest.SHA256(raw[4:])}, nil
}

// String returns the reference as ParseRef reads it, and "" for the zero Ref.
func (r Ref) String() string {
	switch r.Scheme {
	case RefOCI:
		if r.Version != "" {
			return r.Location + ":" + r.Version + "@" + r.Digest.String()
		}
		return r.Location + "@" + r.Digest.String()
	case RefStore, RefURL:
		return r.Location + "#" + r.Digest.SRI()
	case RefCID:
		return "ipfs://" + r.Location
	case RefModel:
		return r.Location + "@" + r.Digest.String()
	case RefGo:
		return "go:" + r.Location + "@" + r.Version + "#h1:" + base64.StdEncoding.EncodeToString(r.Digest[:])
	case RefGit:
		return r.Location + "@" + r.Version + "#" + r.Digest.SRI()
	case RefTree:
		return "tree:" + r.Location + "#" + r.Digest.SRI()
	}
	return ""
}

// IsZero reports whether r refers to nothing. encoding/json leaves such fields out (omitzero).
func (r Ref) IsZero() bool { return r == Ref{} }

// Validate checks that r is the zero Ref or something that ParseRef returns.
func (r Ref) Validate() error {
	if r.IsZero() {
		return nil
	}
	again, err := ParseRef(r.String())
	if err != nil {
		return err
	}
	if again != r {
		return &refError{r.String(), "it has another spelling than its parts say", ""}
	}
	return nil
}

// MarshalText returns String.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRef; the empty text is the zero Ref.
func (r *Ref) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Ref{}
		return nil
	}
	parsed, err := ParseRef(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}
