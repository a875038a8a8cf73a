// Package vouch counts who vouches for the content of a store path of Nix or Guix: by a signature of a binary cache, or by a receipt.
//
// It counts operators, never signatures or keys: a cache with three keys is one voice, and so is someone who both signs a cache and builds. Whose
// key is whose is said by a list of keys and by a trust root. It promises that an operator is counted only for a signature that was
// verified, over exactly that path and that NAR hash. It is pure: no clock, no network, no file.
package vouch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
	"arch.network/builder/binarycache"
	"arch.network/builder/guix/signature"
)

// Limits of a list of keys.
const (
	MaxKeysFile = 1 << 20 // bytes
	maxKeys     = 1024
	maxOperator = 253 // bytes of a name: that of a host
)

// Keys say who runs which key. The zero value knows nobody.
type Keys struct {
	// Quorum is how many operators must agree; 0: the list does not say.
	Quorum int

	nix      []cacheKey
	guix     map[signature.PublicKey]string // operators
	receipts []identity.PublicKey
	owners   map[digest.SHA256]*ownership // by the key's identity.PublicKey.ID, in whatever form it was given
	root     *rootKeys                    // nil: none
}

// cacheKey is a key of Nix, with who runs it.
type cacheKey struct {
	binarycache.PublicKey
	operator string
}

// LineError says which line of a list of keys is wrong.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("read keys: line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Hint tells the form.
func (e *LineError) Hint() string {
	return `each line is "quorum N", "operator NAME KEY" or a comment after "# "; a key is NAME:BASE64 (Nix), (public-key …) in one line (Guix) or did:key:… (receipts)`
}

// ParseKeys reads a list of keys, text of lines:
//
//	# a comment
//	quorum 2
//	operator nixos.org    cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=
//	operator guix.gnu.org (public-key (ecc (curve Ed25519) (q #8D156F295D24B0D9A86FA5741A840FF2D24F60F7B6C4134814AD55625971B394#)))
//	operator example.org  did:key:z6Mk…
//
// The first form of a key is of a binary cache of Nix, the second of a substitute server of Guix, the third of receipts. No key may belong to
// two operators, in whatever form, and none may be there twice.
func ParseKeys(text string) (*Keys, error) {
	if len(text) > MaxKeysFile {
		return nil, fmt.Errorf("read keys: %d bytes are over the limit of %d", len(text), MaxKeysFile)
	}
	k := &Keys{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(strings.TrimSpace(line), " # ") // without a space behind it, a # begins the bytes of a Guix key
		if line == "" || line[0] == '#' {
			continue
		}
		if err := k.line(line); err != nil {
			return nil, &LineError{number, err}
		}
	}
	if k.Quorum > len(k.operators()) {
		return nil, fmt.Errorf("read keys: a quorum of %d is more than the %d operators there are", k.Quorum, len(k.operators()))
	}
	return k, nil
}

func (k *Keys) line(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "quorum":
		n, err := strconv.Atoi(rest)
		if err != nil || n < 1 || n > maxKeys || k.Quorum != 0 {
			return fmt.Errorf("%.50q is no number of operators, or the second one", rest)
		}
		k.Quorum = n
		return nil
	case "operator":
		name, key, _ := strings.Cut(rest, " ")
		return k.Add(name, strings.TrimSpace(key))
	}
	return fmt.Errorf("%.50q is neither quorum nor operator", word)
}

// Add says that an operator runs a key.
func (k *Keys) Add(operator, key string) error {
	if operator == "" || len(operator) > maxOperator || strings.IndexFunc(operator, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
		return fmt.Errorf("%.100q is no name of an operator", operator)
	}
	if len(k.owners) == maxKeys {
		return fmt.Errorf("there are more than %d keys", maxKeys)
	}
	switch {
	case strings.HasPrefix(key, "("):
		public, err := signature.ParsePublicKey(key)
		if err != nil {
			return err
		}
		if k.guix == nil {
			k.guix = map[signature.PublicKey]string{}
		}
		k.guix[public] = operator
		return k.ownPoint("guix", public[:], operator)
	case strings.HasPrefix(key, "did:"):
		public, err := identity.ParsePublicKey(key)
		if err != nil {
			return err
		}
		k.receipts = append(k.receipts, public)
		return k.own("receipt", public.ID(), operator)
	}
	public, err := binarycache.ParsePublicKey(key)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(k.nix, func(o cacheKey) bool { return o.Name == public.Name }) {
		return fmt.Errorf("there are two keys of the name %q", public.Name)
	}
	k.nix = append(k.nix, cacheKey{public, operator})
	return k.ownPoint("nix", public.Key, operator)
}

// ownPoint is own for the 32 bytes of a point of Edwards25519, whatever signs with it. It refuses one by which anybody could sign.
func (k *Keys) ownPoint(purpose string, key []byte, operator string) error {
	public, err := identity.NewPublicKey(identity.Ed25519, key)
	if err != nil {
		return err
	}
	return k.own(purpose, public.ID(), operator)
}

// own notes whose key it is. One key may serve several purposes of one operator.
func (k *Keys) own(purpose string, key digest.SHA256, operator string) error {
	if k.owners == nil {
		k.owners = map[digest.SHA256]*ownership{}
	}
	o := k.owners[key]
	switch {
	case o == nil:
		o = &ownership{operator: operator}
		k.owners[key] = o
	case o.operator != operator:
		return fmt.Errorf("the key belongs to %s already", o.operator)
	case slices.Contains(o.purposes, purpose):
		return errors.New("the key is there already")
	}
	o.purposes = append(o.purposes, purpose)
	return nil
}

// ownership is who runs a key, and what for.
type ownership struct {
	operator string
	purposes []string
}

func (k *Keys) operators() []string {
	var all []string
	for _, o := range k.owners {
		all = append(all, o.operator)
	}
	if k.root != nil {
		for _, operator := range k.root.operators {
			all = append(all, operator)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// rootKeys are those of a trust root.
type rootKeys struct {
	*quorum.Root
	operators map[string]string // by principal
	keys      []identity.PublicKey
}

// roles are those whose members vouch for what is built.
func roles() []string { return []string{manifest.RoleBuilder, manifest.RoleRebuilder} }

// SetTrust adds the builders and rebuilders of a trust root, which the caller trusts. Their Ed25519 keys count as keys of binary caches of Nix,
// too, under whatever name.
func (k *Keys) SetTrust(root *manifest.TrustRoot) error {
	compiled, err := quorum.Compile(root)
	if err != nil {
		return err
	}
	k.root = &rootKeys{Root: compiled, operators: map[string]string{}}
	for _, p := range root.Spec.Principals {
		k.root.operators[p.Name] = cmp.Or(p.Operator, p.Name)
	}
	for _, role := range roles() {
		for _, key := range compiled.Keys(role) {
			if !slices.ContainsFunc(k.root.keys, key.Equal) {
				k.root.keys = append(k.root.keys, key)
			}
			if o := k.owners[key.ID()]; o != nil {
				return fmt.Errorf("use trust root %s: key %s is in the list of keys, too", compiled.Name(), key.Short())
			}
		}
	}
	return nil
}

// Empty reports whether nobody is known.
func (k *Keys) Empty() bool { return len(k.owners) == 0 && k.root == nil }
