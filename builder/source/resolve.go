package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/module"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
)

// Resolve finds out what a reference without a pin means now, for `arch pin`:
//
//	HOST/REPOSITORY[:TAG]              the manifest or index that the registry has for the tag (empty: latest)
//	https://… http://… file:///…       the bytes there now; they are in the store afterwards
//	go:MODULE[@VERSION]                a version, a branch or "latest", as the module proxy resolves it; with GoSumDB the
//	                                   hash is the checksum database's, and the module's zip is not downloaded
//	git+https://…[@REF]                the commit of a branch or tag (empty: HEAD), and its tree
//	/nix/store/… /gnu/store/…          the NAR hash of the path on this machine
//
// What is a pin already is returned as it is. A local path, which begins with "./" or "../", needs no pin: the zero Ref.
// base is the directory of the manifest. What is found is what the network says: whoever pins it decides to trust it.
func (f *Fetcher) Resolve(ctx context.Context, unpinned, base string) (manifest.Ref, error) {
	if strings.HasPrefix(unpinned, "./") || strings.HasPrefix(unpinned, "../") || unpinned == "." || unpinned == ".." {
		return manifest.Ref{}, nil
	}
	ref, err := manifest.ParseRef(unpinned)
	if err == nil {
		return ref, nil
	}
	if _, ok := errors.AsType[*manifest.UnpinnedError](err); !ok {
		return manifest.Ref{}, err
	}
	pinned, err := f.resolve(ctx, strings.TrimSuffix(unpinned, "#"))
	if err != nil {
		return manifest.Ref{}, fmt.Errorf("pin %q: %w", unpinned, err)
	}
	// The text is read again, so that nothing can be pinned that a manifest would not accept.
	if ref, err = manifest.ParseRef(pinned.String()); err != nil {
		return manifest.Ref{}, fmt.Errorf("pin %q: %w", unpinned, err)
	}
	return ref, nil
}

func (f *Fetcher) resolve(ctx context.Context, s string) (manifest.Ref, error) {
	scheme, rest, hasScheme := strings.Cut(s, ":")
	switch {
	case strings.HasPrefix(s, "/"):
		return f.resolveStorePath(ctx, s)
	case scheme == "go":
		return f.resolveGo(ctx, rest)
	case strings.HasPrefix(s, "git+"):
		return f.resolveGit(ctx, s)
	case scheme == "http" || scheme == "https" || scheme == "file":
		return f.resolveURL(ctx, s)
	case scheme == "oci":
		return f.resolveImage(ctx, rest)
	case !hasScheme || !strings.HasPrefix(rest, "//"):
		return f.resolveImage(ctx, s)
	}
	return manifest.Ref{}, &sourceError{fmt.Sprintf("%q says where nothing can be asked", scheme+":"), "write the hash yourself: `arch hash FILE` prints it"}
}

func (f *Fetcher) resolveStorePath(ctx context.Context, path string) (manifest.Ref, error) {
	d, _, err := nar.Hash(ctx, path, nar.Options{})
	return manifest.Ref{Scheme: manifest.RefStore, Location: path, Digest: d}, err
}

func (f *Fetcher) resolveURL(ctx context.Context, address string) (manifest.Ref, error) {
	d, err := f.download(ctx, address, "", func(*os.File) error { return nil })
	return manifest.Ref{Scheme: manifest.RefURL, Location: address, Digest: d}, err
}

func (f *Fetcher) resolveImage(ctx context.Context, s string) (manifest.Ref, error) {
	location, tag := s, "latest"
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		location, tag = s[:i], s[i+1:]
	}
	d, err := f.manifestDigest(ctx, location, tag)
	return manifest.Ref{Scheme: manifest.RefOCI, Location: location, Version: tag, Digest: d}, err
}

func (f *Fetcher) resolveGit(ctx context.Context, s string) (manifest.Ref, error) {
	location, name := s, "HEAD"
	// A path may hold an "@" too; a branch comes after the last one, behind the host.
	if i := strings.LastIndexByte(s, '@'); i > strings.Index(s, "://")+3 {
		location, name = s[:i], s[i+1:]
	}
	repo, err := f.openRepository(ctx, location)
	if err != nil {
		return manifest.Ref{}, err
	}
	defer repo.close()
	commit, err := repo.resolve(ctx, name)
	if err != nil {
		return manifest.Ref{}, err
	}
	if err := repo.fetchCommit(ctx, commit); err != nil {
		return manifest.Ref{}, err
	}
	d, err := f.addCommit(ctx, repo, commit, digest.SHA256{})
	return manifest.Ref{Scheme: manifest.RefGit, Location: location, Version: commit, Digest: d}, err
}

// resolve asks the server for the commit of a branch, a tag or HEAD. A complete commit id is taken as it is.
func (r *repository) resolve(ctx context.Context, name string) (string, error) {
	if (len(name) == 40 || len(name) == 64) && strings.Trim(name, "0123456789abcdef") == "" {
		return name, nil
	}
	if err := r.init(ctx, ""); err != nil {
		return "", err
	}
	out, err := r.run(ctx, "ls-remote", "--quiet", "--", r.url)
	if err != nil {
		return "", err
	}
	ids := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if id, ref, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			ids[ref] = id
		}
	}
	// "^{}" is the commit that an annotated tag stands for.
	for _, ref := range []string{name, "refs/tags/" + name + "^{}", "refs/tags/" + name, "refs/heads/" + name} {
		if id, ok := ids[ref]; ok {
			return id, nil
		}
	}
	return "", &sourceError{fmt.Sprintf("%s has no branch or tag %q", r.url, name), "write git+https://HOST/PATH@BRANCH, or a complete commit id"}
}

func (f *Fetcher) resolveGo(ctx context.Context, s string) (manifest.Ref, error) {
	path, query, ok := strings.Cut(s, "@")
	if !ok {
		query = "latest"
	}
	version, err := f.goVersion(ctx, path, query)
	if err != nil {
		return manifest.Ref{}, err
	}
	m := module.Version{Path: path, Version: version}
	d, err := f.goSum(ctx, m)
	return manifest.Ref{Scheme: manifest.RefGo, Location: path, Version: version, Digest: d}, err
}

// goVersion asks the proxy which version a query means.
func (f *Fetcher) goVersion(ctx context.Context, path, query string) (string, error) {
	if module.Check(path, query) == nil {
		return query, nil
	}
	escaped, err := module.EscapePath(path)
	if err != nil {
		return "", err
	}
	if strings.Trim(query, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-/") != "" || strings.Contains(query, "..") {
		return "", fmt.Errorf("version query %q holds characters that no version has", query)
	}
	rel := "/@latest"
	if query != "latest" {
		rel = "/@v/" + query + ".info"
	}
	var info struct{ Version string }
	err = f.askProxies(ctx, "go:"+path+"@"+query, func(base string) error {
		data, err := f.get(ctx, base+"/"+escaped+rel, maxGoFile)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &info)
	})
	if err != nil {
		return "", err
	}
	return info.Version, module.Check(path, info.Version)
}

// goSum finds the hash of a module: from the checksum database, or, without one, of what the proxy gives.
func (f *Fetcher) goSum(ctx context.Context, m module.Version) (digest.SHA256, error) {
	if f.GoSumDB {
		return f.lookupSum(ctx, m)
	}
	var hash digest.SHA256
	err := f.askProxies(ctx, "go:"+m.String(), func(base string) error {
		address, err := goFile(base, m, ".zip")
		if err != nil {
			return err
		}
		_, err = f.download(ctx, address, "", func(file *os.File) error {
			sum, err := goPin{Version: m}.sum(file)
			if err != nil {
				return err
			}
			hash, err = parseH1(sum)
			return err
		})
		return err
	})
	return hash, err
}
