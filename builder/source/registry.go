package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
)

// ociRegistry is a repository of a registry: distribution-spec. Its Fetcher downloads with the tokens that it wants.
type ociRegistry struct {
	f    *Fetcher
	base string // URL of the repository
}

// openRegistry asks a registry how it wants to be asked.
func (f *Fetcher) openRegistry(ctx context.Context, location string) (*ociRegistry, error) {
	if f.Offline {
		return nil, &MissingError{Inputs: []string{location}, Cure: offlineCure}
	}
	repo, err := name.NewRepository(location, name.StrictValidation)
	if err != nil {
		return nil, err
	}
	auth := authn.Anonymous
	if f.DockerAuth {
		if auth, err = authn.DefaultKeychain.Resolve(repo.Registry); err != nil {
			return nil, fmt.Errorf("read the credentials for %s: %w", repo.RegistryStr(), err)
		}
	}
	var rt http.RoundTripper
	line := &registryLine{f.transport(), isLoopback(hostname(repo.RegistryStr()))}
	err = f.retry(ctx, repo.RegistryStr(), func() (bool, error) {
		rt, err = transport.NewWithContext(ctx, repo.Registry, auth, line, []string{repo.Scope(transport.PullScope)})
		return false, registryError(repo.RegistryStr(), err)
	})
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if line.local {
		scheme = "http"
	}
	sub := &Fetcher{Store: f.Store, HTTP: &http.Client{Transport: accepting{rt}}, MaxDownload: f.MaxDownload, Partial: f.Partial, Sleep: f.Sleep, Log: f.Log}
	return &ociRegistry{sub, scheme + "://" + repo.RegistryStr() + "/v2/" + repo.RepositoryStr()}, nil
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// bulkHeader marks, on the way to registryLine, the requests for manifests and blobs: our own code bounds their answers.
const bulkHeader = "Arch-Bulk"

// accepting names the media types that we know to a registry, which would else convert manifests to what it thinks we do.
type accepting struct {
	next http.RoundTripper
}

func (a accepting) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set(bulkHeader, "yes")
	if strings.Contains(req.URL.Path, "/manifests/") {
		req.Header.Set("Accept", strings.Join([]string{imagespec.MediaTypeIndex, imagespec.MediaTypeManifest, imagespec.MediaTypeDockerIndex, imagespec.MediaTypeDockerManifest}, ", "))
	}
	return a.next.RoundTrip(req)
}

// The bounds of what a registry and its token server say before there is anything to download.
const (
	maxGreeting     = 256 << 10 // bytes; tokens have a few KiB
	greetingTimeout = 2 * time.Minute
)

// registryLine is how a registry, its token server and wherever they redirect to are asked. It refuses unencrypted HTTP
// everywhere but on this machine, and this machine unless the registry itself is on it. It bounds what is not bulk: the
// library that asks for tokens reads answers to their end, whatever their size.
type registryLine struct {
	next  http.RoundTripper
	local bool // the registry is on this machine
}

func (l *registryLine) RoundTrip(req *http.Request) (*http.Response, error) {
	loopback := isLoopback(req.URL.Hostname())
	if req.URL.Scheme != "https" && !loopback {
		return nil, finalError{&sourceError{fmt.Sprintf("registry %s speaks only unencrypted HTTP", req.URL.Host), "serve it with TLS, or copy the image into an OCI layout and name that with --archive"}}
	}
	if !l.local && nearby(req.URL.Hostname()) {
		return nil, finalError{fmt.Errorf("the registry sends to %q, which is this machine or one beside it", req.URL.Host)}
	}
	bulk := req.Header.Get(bulkHeader) != ""
	req = req.Clone(req.Context())
	req.Header.Del(bulkHeader)
	if bulk {
		return l.next.RoundTrip(req)
	}
	return l.greet(req)
}

// greet bounds the size and the time of an answer.
func (l *registryLine) greet(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), greetingTimeout)
	resp, err := l.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &greeting{io.LimitReader(resp.Body, maxGreeting), resp.Body, cancel}
	return resp, nil
}

// greeting is the body of a short answer.
type greeting struct {
	io.Reader
	body   io.Closer
	cancel func()
}

func (g *greeting) Close() error {
	defer g.cancel()
	return g.body.Close()
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// registryError gives a registry's refusal the form of any other server's.
func registryError(what string, err error) error {
	if t, ok := errors.AsType[*transport.Error](err); ok {
		return &statusError{url: what, code: t.StatusCode}
	}
	if err != nil {
		return &registryFault{what, err}
	}
	return nil
}

// registryFault is an error of talking to a registry, whose text may hold whatever that answered.
type registryFault struct {
	registry string
	err      error
}

func (e *registryFault) Error() string {
	return fmt.Sprintf("ask registry %s: %.500q", e.registry, e.err.Error())
}

func (e *registryFault) Unwrap() error { return e.err }

// pull downloads a blob or manifest of an image into the store.
// It may have at most max bytes.
func (f *Fetcher) pull(ctx context.Context, ref manifest.Ref, kind string, d digest.SHA256, max int64) error {
	r, err := f.openRegistry(ctx, ref.Location)
	if err != nil {
		return err
	}
	r.f.MaxDownload = max
	address := r.base + "/" + kind + "/" + d.String()
	_, err = r.f.download(ctx, address, d.Hex(), func(file *os.File) error { return checkBytes(file, ref.String(), d) })
	return err
}

// manifestDigest asks which manifest a tag means now, and hashes the answer.
func (f *Fetcher) manifestDigest(ctx context.Context, location, tag string) (digest.SHA256, error) {
	r, err := f.openRegistry(ctx, location)
	if err != nil {
		return digest.SHA256{}, err
	}
	data, err := r.f.get(ctx, r.base+"/manifests/"+tag, imagespec.MaxDocument)
	if err != nil {
		return digest.SHA256{}, err
	}
	if _, err := imagespec.Parse(data); err != nil {
		return digest.SHA256{}, fmt.Errorf("%s:%s: %w", location, tag, err)
	}
	return digest.Of(data), nil
}
