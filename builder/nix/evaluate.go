package nix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder/derivation"
	"arch.network/builder/nix/drv"
)

// DirtyError says that a flake has changes that no revision has.
type DirtyError struct{ Flake string }

func (e *DirtyError) Error() string {
	return fmt.Sprintf("flake %s has uncommitted changes: nobody could find by its revision what would be attested", e.Flake)
}

// Hint tells the way out.
func (e *DirtyError) Hint() string {
	return "commit them; or write path:DIR#ATTRIBUTE to attest the directory as it is, by its hash"
}

// UnlockedError says that an input of a flake is not pinned.
type UnlockedError struct{ Flake, Input string }

func (e *UnlockedError) Error() string {
	return fmt.Sprintf("input %q of flake %s is not locked to a content", e.Input, e.Flake)
}

// Hint tells the way out.
func (e *UnlockedError) Hint() string {
	return "run `nix flake update` with a Nix that writes narHash into flake.lock"
}

// Evaluate finds the derivation that a target is. The derivation and its sources are then in the store.
func (b Backend) Evaluate(ctx context.Context, t Target) (derivation.Evaluated, error) {
	return b.Nix.evaluate(ctx, b.At, t)
}

func (n *Nix) evaluate(ctx context.Context, s Store, t Target) (derivation.Evaluated, error) {
	switch {
	case t.Path != "":
		path, err := n.deriver(ctx, s, t.Path)
		return derivation.Evaluated{Drv: path}, err
	case t.File != "":
		return n.evaluateFile(ctx, s, t)
	}
	return n.evaluateFlake(ctx, s, t)
}

// deriver returns the derivation of a path, which may be one itself.
func (n *Nix) deriver(ctx context.Context, s Store, path string) (string, error) {
	if strings.HasSuffix(path, drv.Suffix) {
		if valid, err := n.isValid(ctx, s, path); err != nil {
			return "", err
		} else if !valid {
			return "", fmt.Errorf("derivation %s is not in the store %s", path, s.url())
		}
		return path, nil
	}
	text, err := n.run(ctx, s, call{act: "find the derivation of " + path, program: "nix-store", args: []string{"--query", "--deriver", path}})
	if err != nil {
		return "", err
	}
	found := strings.TrimSpace(string(text))
	if _, err := drv.Name(found); err != nil {
		return "", &derivation.UnknownDeriverError{Path: path}
	}
	if valid, err := n.isValid(ctx, s, found); err != nil {
		return "", err
	} else if !valid {
		return "", &derivation.UnknownDeriverError{Path: path}
	}
	return found, nil
}

func (n *Nix) evaluateFile(ctx context.Context, s Store, t Target) (derivation.Evaluated, error) {
	if _, err := os.Stat(t.File); err != nil {
		return derivation.Evaluated{}, fmt.Errorf("evaluate %s: %w", t.Text, err)
	}
	args := []string{t.File}
	if t.Attribute != "" {
		args = append(args, "--attr", t.Attribute)
	}
	text, err := n.run(ctx, s, call{act: "evaluate " + t.Text, program: "nix-instantiate", args: args})
	if err != nil {
		return derivation.Evaluated{}, err
	}
	path, err := oneDerivation(t.Text, text)
	return derivation.Evaluated{Drv: path}, err
}

// SeveralError says that an evaluation gave several derivations.
type SeveralError struct {
	Target string
	Drvs   []string
}

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%s is %d derivations, and an attestation is of one", e.Target, len(e.Drvs))
}

// Hint tells the way out.
func (e *SeveralError) Hint() string { return "name one of its attributes, as in FILE.nix#ATTRIBUTE" }

// oneDerivation reads what an evaluation printed: the path of one derivation, with or without the name of an output.
func oneDerivation(what string, printed []byte) (string, error) {
	var list []string
	for line := range strings.FieldsSeq(string(printed)) {
		path, _, _ := strings.Cut(line, "!")
		if _, err := drv.Name(path); err != nil {
			return "", fmt.Errorf("evaluate %s: %w", what, err)
		}
		if !slices.Contains(list, path) {
			list = append(list, path)
		}
	}
	if len(list) != 1 {
		return "", &SeveralError{what, list}
	}
	return list[0], nil
}

// locked is what Nix knows of a flake's tree (nix3-flake(1), "Flake references"; flake.lock is of version 7).
type locked struct {
	Type         string `json:"type"`
	Owner        string `json:"owner"`
	Repo         string `json:"repo"`
	Host         string `json:"host"`
	URL          string `json:"url"`
	Path         string `json:"path"`
	Dir          string `json:"dir"`
	Rev          string `json:"rev"`
	RevCount     int64  `json:"revCount"`
	LastModified int64  `json:"lastModified"`
	NarHash      string `json:"narHash"`
}

// place returns where the tree may be found by others; empty: nowhere.
func (l locked) place() string {
	host := ""
	if l.Host != "" {
		host = "?host=" + l.Host
	}
	switch l.Type {
	case "github", "gitlab", "sourcehut":
		return l.Type + ":" + l.Owner + "/" + l.Repo + "/" + l.Rev + host
	case "git":
		if strings.HasPrefix(l.URL, "file:") || strings.HasPrefix(l.URL, "/") {
			return ""
		}
		return "git+" + l.URL + "?rev=" + l.Rev
	case "tarball", "file":
		if strings.HasPrefix(l.URL, "file:") {
			return ""
		}
		return l.URL
	}
	return ""
}

// flake returns the record of a tree. The time of a mere directory says nothing: it is left out, and Nix is then told the one that all files of a store have.
func (l locked) flake(name string) (manifest.BuildFlake, error) {
	sum, err := digest.ParseSRI(l.NarHash)
	if err != nil {
		return manifest.BuildFlake{}, err
	}
	f := manifest.BuildFlake{Ref: manifest.Ref{Scheme: manifest.RefTree, Location: treeName(name), Digest: sum}, URL: l.place(), Dir: l.Dir}
	if l.Rev != "" || f.URL != "" {
		f.Rev, f.RevCount, f.LastModified = l.Rev, l.RevCount, l.LastModified
	}
	return f, nil
}

// treeName makes of the name of an input one that a tree: reference may have.
func treeName(name string) string {
	clean := strings.TrimLeft(regexp.MustCompile(`[^A-Za-z0-9._+-]`).ReplaceAllString(name, "-"), "._+-")
	if clean == "" {
		return "input"
	}
	return clean[:min(len(clean), 128)]
}

// evaluateFlake has Nix fetch and lock a flake, and then evaluates the tree that is in the store, by its hash: so does everybody who
// rebuilds.
func (n *Nix) evaluateFlake(ctx context.Context, s Store, t Target) (derivation.Evaluated, error) {
	text, err := n.run(ctx, s, call{
		act: "find flake " + t.Flake, program: "nix", verb: []string{"flake", "metadata"},
		args: []string{"--json", "--no-update-lock-file", t.Flake},
	})
	if err != nil {
		return derivation.Evaluated{}, err
	}
	var found struct {
		Locked locked `json:"locked"`
		Path   string `json:"path"`
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return derivation.Evaluated{}, fmt.Errorf("find flake %s: %w", t.Flake, err)
	}
	if found.Locked.Type == "git" && (found.Locked.Rev == "" || strings.Trim(found.Locked.Rev, "0") == "") {
		return derivation.Evaluated{}, &DirtyError{t.Flake}
	}
	tree, err := storepath.Parse(found.Path)
	if err != nil {
		return derivation.Evaluated{}, fmt.Errorf("find flake %s: %w", t.Flake, err)
	}
	sum, _, err := nar.Hash(ctx, s.file(tree.String()), nar.Options{})
	if err != nil {
		return derivation.Evaluated{}, fmt.Errorf("find flake %s: %w", t.Flake, err)
	}
	found.Locked.NarHash = sum.SRI() // ours, whatever was said
	top, err := found.Locked.flake("flake")
	if err != nil {
		return derivation.Evaluated{}, fmt.Errorf("find flake %s: %w", t.Flake, err)
	}
	inputs, err := lockedInputs(s.file(tree.String()), top.Dir)
	if err != nil {
		return derivation.Evaluated{}, fmt.Errorf("find inputs of flake %s: %w", t.Flake, err)
	}
	e := derivation.Evaluated{Flakes: append([]manifest.BuildFlake{top}, inputs...), Attribute: t.Attribute}
	e.Drv, err = n.evaluateTree(ctx, s, "evaluate "+t.Text, top, e.Attribute)
	return e, err
}

// evaluateTree evaluates an attribute of a flake whose tree is in the store.
func (n *Nix) evaluateTree(ctx context.Context, s Store, act string, f manifest.BuildFlake, attribute string) (string, error) {
	tree, err := storepath.Source(storepath.Nix, "source", f.Ref.Digest, nil, false)
	if err != nil {
		return "", err
	}
	query := url.Values{"narHash": {f.Ref.Digest.SRI()}}
	for name, value := range map[string]string{"rev": f.Rev, "dir": f.Dir} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, value := range map[string]int64{"revCount": f.RevCount, "lastModified": cmp.Or(f.LastModified, derivation.StoreTime)} {
		if value != 0 {
			query.Set(name, strconv.FormatInt(value, 10))
		}
	}
	ref := (&url.URL{Scheme: "path", Path: s.file(tree.String()), RawQuery: query.Encode()}).String()
	if attribute != "" {
		ref += "#" + attribute
	}
	text, err := n.run(ctx, s, call{
		act: act, program: "nix", verb: []string{"path-info"},
		args: []string{"--derivation", "--no-update-lock-file", ref},
	})
	if err != nil {
		return "", err
	}
	return oneDerivation(act, text)
}

// maxLock bounds flake.lock, in bytes.
const maxLock = 8 << 20

// lockedInputs reads flake.lock of a flake's tree: every input of the flake, and theirs, sorted by name.
func lockedInputs(tree, dir string) ([]manifest.BuildFlake, error) {
	data, err := readRegular(filepath.Join(tree, filepath.Clean("/"+dir), "flake.lock"), maxLock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseLock(data)
}

// parseLock reads flake.lock.
func parseLock(data []byte) ([]manifest.BuildFlake, error) {
	var lock struct {
		Version int    `json:"version"`
		Root    string `json:"root"`
		Nodes   map[string]struct {
			Locked *locked `json:"locked"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return nil, fmt.Errorf("read flake.lock: %w", err)
	}
	if lock.Version < 5 || lock.Version > 7 {
		return nil, fmt.Errorf("read flake.lock: it has the version %d; 5 to 7 are known", lock.Version)
	}
	var list []manifest.BuildFlake
	for _, name := range slices.Sorted(maps.Keys(lock.Nodes)) {
		node := lock.Nodes[name]
		switch {
		case name == lock.Root:
			continue
		case node.Locked == nil:
			return nil, &UnlockedError{"of flake.lock", name}
		case node.Locked.Type == "path" && !filepath.IsAbs(node.Locked.Path):
			continue // a directory of the flake's own tree, which is pinned with it
		}
		f, err := node.Locked.flake(name)
		if err != nil {
			return nil, &UnlockedError{"of flake.lock", name}
		}
		list = append(list, f)
	}
	return list, nil
}

// readRegular reads a file that must be regular, following no link.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > limit:
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", filepath.Base(path), limit)
	}
	return os.ReadFile(path)
}
