package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
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
	err = f.retry(ctx, repo.RegistryStr(), func() (bool, error) {
		rt, err = transport.NewWithContext(ctx, repo.Registry, auth, loopbackHTTP{f.transport()}, []string{repo.Scope(transport.PullScope)})
		return false, registryError(repo.RegistryStr(), err)
	})
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if host := repo.RegistryStr(); isLoopback(hostname(host)) {
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

// accepting names the media types that we know to a registry, which would else convert manifests to what it thinks we do.
type accepting struct {
	next http.RoundTripper
}

func (a accepting) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.Contains(req.URL.Path, "/manifests/") {
		req = req.Clone(req.Context())
		req.Header.Set("Accept", strings.Join([]string{ociIndex, ociManifest, dockerIndex, dockerManifest}, ", "))
	}
	return a.next.RoundTrip(req)
}

// loopbackHTTP refuses unencrypted registries everywhere but on this machine.
type loopbackHTTP struct {
	next http.RoundTripper
}

func (l loopbackHTTP) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !isLoopback(req.URL.Hostname()) {
		return nil, finalError{&sourceError{fmt.Sprintf("registry %s speaks only unencrypted HTTP", req.URL.Host), "serve it with TLS, or copy the image into an OCI layout and name that with --archive"}}
	}
	return l.next.RoundTrip(req)
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
	return err
}

// pull downloads a blob or manifest of an image into the store.
func (f *Fetcher) pull(ctx context.Context, ref manifest.Ref, kind string, d digest.SHA256) error {
	r, err := f.openRegistry(ctx, ref.Location)
	if err != nil {
		return err
	}
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
	data, err := r.f.get(ctx, r.base+"/manifests/"+tag, maxManifest)
	if err != nil {
		return digest.SHA256{}, err
	}
	if _, err := parseOCI(data); err != nil {
		return digest.SHA256{}, fmt.Errorf("%s:%s: %w", location, tag, err)
	}
	return digest.Of(data), nil
}
