package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
)

const (
	defaultGoProxy = "https://proxy.golang.org"
	// maxGoFile bounds .info and .mod files: x/mod/zip.MaxGoMod.
	maxGoFile = 16 << 20
	// zipKind is the kind of the store's records of which zip, by SHA-256, satisfies a Go reference.
	zipKind = "go-zip-1"
)

// goProxy is one entry of a GOPROXY list (go.dev/ref/mod#goproxy-protocol).
type goProxy struct {
	base    string
	anyFail bool // the next entry is asked after any failure, not only after 404 and 410
}

// proxies reads GOPROXY.
func (f *Fetcher) proxies() []goProxy {
	list := f.GoProxy
	if list == "" {
		list = defaultGoProxy
	}
	var proxies []goProxy
	for list != "" {
		entry, sep := list, ""
		if i := strings.IndexAny(list, ",|"); i >= 0 {
			entry, sep, list = list[:i], list[i:i+1], list[i+1:]
		} else {
			list = ""
		}
		if entry = strings.TrimRight(strings.TrimSpace(entry), "/"); entry != "" {
			proxies = append(proxies, goProxy{entry, sep == "|"})
		}
	}
	return proxies
}

// askProxies calls ask with one proxy after the other until one has what is wanted.
func (f *Fetcher) askProxies(ctx context.Context, what string, ask func(base string) error) error {
	var tried triedError
	offline := false
	for _, p := range f.proxies() {
		switch scheme, _, _ := strings.Cut(p.base, "://"); {
		case p.base == "direct" || p.base == "off":
			tried = append(tried, &sourceError{
				fmt.Sprintf("GOPROXY entry %q cannot be asked", p.base),
				"name a module proxy in GOPROXY, such as " + defaultGoProxy + ", or a file:// tree: modules are not built from their repositories here",
			})
			return tried.err()
		case scheme != "http" && scheme != "https" && scheme != "file":
			return &sourceError{fmt.Sprintf("GOPROXY entry %q is no URL", redacted(p.base)), "write https://HOST or file:///DIRECTORY"}
		case f.Offline && scheme != "file":
			offline = true
			continue
		}
		err := ask(p.base)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		tried = append(tried, err)
		if !p.anyFail && !notFound(err) {
			return tried.err()
		}
	}
	if offline {
		return &MissingError{Inputs: []string{what}, Cause: tried.err(), Cure: offlineCure}
	}
	return tried.err()
}

func notFound(err error) bool {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.code == http.StatusNotFound || s.code == http.StatusGone
	}
	return errors.Is(err, fs.ErrNotExist)
}

// goFile returns the address of a module's file below a proxy or a module cache's download directory.
func goFile(base string, m module.Version, suffix string) (string, error) {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return "", err
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return "", err
	}
	return base + "/" + path + "/@v/" + version + suffix, nil
}

// goPin is something that go.sum pins: a module's zip or its go.mod file.
type goPin struct {
	module.Version
	mod  bool // the go.mod file
	hash digest.SHA256
}

// uri is the reference as it stands in a manifest; for a go.mod file the same form, with go.sum's "/go.mod".
func (p goPin) uri() string {
	ref := manifest.Ref{Scheme: manifest.RefGo, Location: p.Path, Version: p.Version.Version, Digest: p.hash}
	if p.mod {
		ref.Version += "/go.mod"
	}
	return ref.String()
}

func (p goPin) suffix() string {
	if p.mod {
		return ".mod"
	}
	return ".zip"
}

// check compares a file with the pin.
func (p goPin) check(file *os.File) error {
	got, err := p.sum(file)
	if err != nil {
		return fmt.Errorf("%s: %w", p.uri(), err)
	}
	if want := h1(p.hash); got != want {
		return &PinError{Ref: p.uri(), Want: want, Got: got}
	}
	return nil
}

// sum is the h1 hash of a file. A zip is first checked by the rules for module zips, which bound its contents.
func (p goPin) sum(file *os.File) (string, error) {
	if !p.mod {
		if err := checkDirectory(file); err != nil {
			return "", err
		}
		if _, err := modzip.CheckZip(p.Version, file.Name()); err != nil {
			return "", err
		}
		return dirhash.HashZip(file.Name(), dirhash.Hash1)
	}
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if info.Size() > maxGoFile {
		return "", tooLarge("go.mod file", maxGoFile)
	}
	return sumGoMod(io.NewSectionReader(file, 0, info.Size()))
}

// checkDirectory refuses a zip whose directory alone would fill the memory: modzip.CheckZip bounds only what it holds.
func checkDirectory(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, err = unpack.OpenZip(file, info.Size())
	return err
}

func sumGoMod(r io.Reader) (string, error) {
	return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(r), nil })
}

func h1(d digest.SHA256) string { return "h1:" + strings.TrimPrefix(d.SRI(), "sha256-") }

// goBlob makes sure that the store has the file that p pins, and returns its SHA-256.
func (f *Fetcher) goBlob(ctx context.Context, p goPin) (digest.SHA256, error) {
	key := p.uri()
	if d, ok := f.recallGo(p); ok {
		return d, nil
	}
	d, err := f.archivedGo(ctx, p)
	if err != nil {
		d, err = f.cachedGo(ctx, p)
	}
	if err != nil {
		err = f.askProxies(ctx, key, func(base string) error {
			address, err := goFile(base, p.Version, p.suffix())
			if err != nil {
				return err
			}
			d, err = f.download(ctx, address, key, p.check)
			return err
		})
	}
	if err != nil {
		return digest.SHA256{}, err
	}
	return d, f.Store.Remember(zipKind, key, []byte(d.Hex()))
}

func (f *Fetcher) recallGo(p goPin) (digest.SHA256, bool) {
	value, ok, err := f.Store.Recall(zipKind, p.uri())
	if !ok || err != nil {
		return digest.SHA256{}, false
	}
	d, err := digest.ParseHex(string(value))
	if err != nil {
		return digest.SHA256{}, false
	}
	_, ok = f.Store.BlobPath(d)
	return d, ok
}

// archivedGo takes what an archive says satisfies the pin, if it does.
func (f *Fetcher) archivedGo(ctx context.Context, p goPin) (digest.SHA256, error) {
	d, ok := f.hint(ctx, p.uri())
	if !ok {
		return d, fs.ErrNotExist
	}
	if err := f.blob(ctx, p.uri(), d, nil); err != nil {
		return d, err
	}
	file, err := f.Store.OpenBlob(d)
	if err != nil {
		return d, err
	}
	defer file.Close()
	if err := p.check(file); err != nil {
		f.log(Event{Kind: EventSkip, What: p.uri(), Detail: err.Error()})
		return d, err
	}
	return d, nil
}

// cachedGo takes the file from the machine's module cache, if it is there and is what is pinned.
func (f *Fetcher) cachedGo(ctx context.Context, p goPin) (digest.SHA256, error) {
	if f.GoModCache == "" {
		return digest.SHA256{}, fs.ErrNotExist
	}
	path, err := goFile(filepath.Join(f.GoModCache, "cache", "download"), p.Version, p.suffix())
	if err != nil {
		return digest.SHA256{}, err
	}
	d, err := f.addFile(ctx, path, p.check)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log(Event{Kind: EventSkip, What: p.uri(), Detail: err.Error()})
	}
	return d, err
}
