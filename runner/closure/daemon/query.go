package daemon

import (
	"context"
	"fmt"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// The numbers of requests (worker-protocol.hh).
const (
	opIsValidPath                = 1
	opAddToStore                 = 7
	opAddTextToStore             = 8
	opBuildPaths                 = 9
	opExportPath                 = 16 // of Guix
	opSetOptions                 = 19
	opQueryDerivationOutputs     = 22
	opQueryPathInfo              = 26
	opQueryDerivationOutputNames = 28
	opQueryPathFromHashPart      = 29
	opNarFromPath                = 38
	opAddToStoreNar              = 39
	opQueryDerivationOutputMap   = 41
	opQueryRealisation           = 43
)

// PathInfo is what a store's database says of an object.
type PathInfo struct {
	Path       string
	Deriver    string // the derivation that built it; empty: unknown
	NAR        digest.SHA256
	Size       int64    // bytes of the NAR; zero: unknown
	References []string // in the daemon's order
	Registered int64    // when it came here, in seconds since 1970
	Ultimate   bool     // it was built here; Guix does not tell
	Signatures []string // "NAME:BASE64"; not checked; Guix does not tell
	CA         string   // what the path is the hash of, such as "fixed:r:sha256:…"; not checked; empty: its recipe, or unknown, as with Guix
}

// identity says what the content is, for comparisons.
func (i PathInfo) identity() string { return fmt.Sprintf("%s of %d bytes", i.NAR, i.Size) }

// IsValid reports whether the store has an object.
func (c *Client) IsValid(ctx context.Context, path string) (valid bool, err error) {
	if err := checkPath(path, c.in.dir); err != nil {
		return false, err
	}
	err = c.do(ctx, request{
		act: "look up " + path, op: opIsValidPath,
		args:  func(e encoder) { e.text(path) },
		reply: func() (err error) { valid, err = c.in.flag(); return err },
	})
	return valid && err == nil, err
}

// PathInfo returns what the store says of an object. If it does not have it, the error is a *NotFoundError.
func (c *Client) PathInfo(ctx context.Context, path string) (PathInfo, error) {
	if err := checkPath(path, c.in.dir); err != nil {
		return PathInfo{}, err
	}
	info, found := PathInfo{}, true
	err := c.do(ctx, request{
		act: "look up " + path, op: opQueryPathInfo,
		args: func(e encoder) { e.text(path) },
		reply: func() (err error) {
			if c.kind == Nix {
				if found, err = c.in.flag(); err != nil || !found {
					return err
				}
			}
			info, err = c.in.pathInfo(c.kind, path)
			return err
		},
	})
	if c.kind == Guix && isDaemon(err) { // it has no better word for "there is none"
		if valid, e := c.IsValid(ctx, path); e == nil && !valid {
			err, found = nil, false
		}
	}
	if err == nil && !found {
		err = &NotFoundError{path}
	}
	if err != nil {
		return PathInfo{}, err
	}
	return info, nil
}

// pathInfo reads what is said of an object.
func (d *decoder) pathInfo(kind Kind, path string) (PathInfo, error) {
	i := PathInfo{Path: path}
	var err error
	if i.Deriver, err = d.optionalPath(); err != nil {
		return i, err
	}
	hash, err := d.word()
	if err != nil {
		return i, err
	}
	if i.NAR, err = digest.ParseHex(hash); err != nil {
		return i, broken("read the hash of a NAR", err)
	}
	if i.References, err = d.list(d.path); err != nil {
		return i, err
	}
	const maxInt = 1<<63 - 1
	registered, err := d.count(maxInt)
	if err != nil {
		return i, err
	}
	size, err := d.count(maxInt)
	i.Registered, i.Size = registered, size
	if err != nil || kind == Guix {
		return i, err
	}
	if i.Ultimate, err = d.flag(); err != nil {
		return i, err
	}
	if i.Signatures, err = d.list(d.word); err != nil {
		return i, err
	}
	i.CA, err = d.word()
	return i, err
}

// PathFromHashPart returns the object whose path has a hash part, 32 characters of Nix's base 32; empty: there is none.
func (c *Client) PathFromHashPart(ctx context.Context, hash string) (path string, err error) {
	if err := checkPath(c.in.dir+"/"+hash+"-x", c.in.dir); err != nil {
		return "", err
	}
	err = c.do(ctx, request{
		act: "look up " + hash, op: opQueryPathFromHashPart,
		args: func(e encoder) { e.text(hash) },
		reply: func() (err error) {
			path, err = c.in.optionalPath()
			if err == nil && path != "" && !strings.HasPrefix(path, c.in.dir+"/"+hash+"-") {
				err = &ProtocolError{Reason: fmt.Sprintf("asked for the path of %s, it says %s", hash, path)}
			}
			return err
		},
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

// Outputs returns the outputs of a derivation that the store has, by name. A path is empty as long as it is not known, which can be with outputs
// that are named by their content.
func (c *Client) Outputs(ctx context.Context, drv string) (map[string]string, error) {
	if err := checkPath(drv, c.in.dir); err != nil {
		return nil, err
	}
	if c.kind == Guix {
		return c.outputsByName(ctx, drv)
	}
	outputs := map[string]string{}
	err := c.do(ctx, request{
		act: "look up outputs of " + drv, op: opQueryDerivationOutputMap,
		args: func(e encoder) { e.text(drv) },
		reply: func() error {
			n, err := c.in.count(maxList)
			for ; err == nil && n > 0; n-- {
				var name, path string
				if name, err = c.in.word(); err != nil {
					break
				}
				if _, twice := outputs[name]; twice || storepath.CheckName(name) != nil {
					return &ProtocolError{Reason: fmt.Sprintf("%.100q is no name of an output, or comes twice", name)}
				}
				path, err = c.in.optionalPath()
				outputs[name] = path
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return outputs, nil
}

// outputsByName is Outputs with Guix, which tells the names and the paths apart. An output's path ends in its name.
func (c *Client) outputsByName(ctx context.Context, drv string) (map[string]string, error) {
	var names, paths []string
	for _, q := range []struct {
		op   uint64
		read func() (string, error)
		to   *[]string
	}{{opQueryDerivationOutputNames, c.in.word, &names}, {opQueryDerivationOutputs, c.in.path, &paths}} {
		err := c.do(ctx, request{
			act: "look up outputs of " + drv, op: q.op,
			args:  func(e encoder) { e.text(drv) },
			reply: func() (err error) { *q.to, err = c.in.list(q.read); return err },
		})
		if err != nil {
			return nil, err
		}
	}
	at, err := storepath.Parse(drv)
	if err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for _, path := range paths {
		p, err := storepath.Parse(path)
		if err != nil {
			return nil, err
		}
		byName[p.Name] = path
	}
	outputs := map[string]string{}
	for _, name := range names {
		path := byName[storepath.OutputName(strings.TrimSuffix(at.Name, ".drv"), name)]
		if path == "" {
			return nil, fmt.Errorf("look up outputs of %s: no path is that of %.100q", drv, name)
		}
		outputs[name] = path
	}
	if len(outputs) != len(paths) {
		return nil, fmt.Errorf("look up outputs of %s: there are %d names and %d paths", drv, len(outputs), len(paths))
	}
	return outputs, nil
}

// Realisation returns what the store knows of an output that is named by its content: the JSON that Nix until 2.34 has at realisations/ID.doi in binary
// caches (see package realisation), of at most 1 MiB. The id is "sha256:HEX!OUTPUT". If there is none, or if the daemon does not have
// experimental-features = ca-derivations, the error is a *NotFoundError. Guix has no such outputs: it is an *UnsupportedError, as with Nix before 2.5.
func (c *Client) Realisation(ctx context.Context, id string) ([]byte, error) {
	act := "look up realisation " + plain(id)
	if c.kind != Nix || c.version < 1<<8|31 {
		return nil, &UnsupportedError{act, c.kind}
	}
	var found []string
	err := c.do(ctx, request{
		act: act, op: opQueryRealisation,
		args: func(e encoder) { e.text(id) },
		reply: func() (err error) {
			n, err := c.in.count(1)
			if err == nil && n == 1 {
				var text string
				text, err = c.in.text(maxText)
				found = append(found, text)
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &NotFoundError{id}
	}
	return []byte(found[0]), nil
}
