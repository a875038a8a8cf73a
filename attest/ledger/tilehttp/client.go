package tilehttp

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"arch.network/attest/ledger"
)

// Client reads a log that is published at a URL. It implements ledger.Source.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client for the log whose checkpoint is at base + "/checkpoint".
func NewClient(base string, client *http.Client) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("read log at %q: it is no http or https URL of a log", base)
	}
	return &Client{base: strings.TrimRight(base, "/"), http: client}, nil
}

// ReadCheckpoint implements ledger.Source.
func (c *Client) ReadCheckpoint(ctx context.Context) ([]byte, error) {
	return c.get(ctx, ledger.CheckpointPath, ledger.MaxNote)
}

// ReadTile implements ledger.TileReader.
func (c *Client) ReadTile(ctx context.Context, path string) ([]byte, error) {
	return c.partial(ctx, path, ledger.MaxTile)
}

// ReadBundle implements ledger.Source.
func (c *Client) ReadBundle(ctx context.Context, path string) ([]byte, error) {
	return c.partial(ctx, path, ledger.MaxBundle)
}

func (c *Client) partial(ctx context.Context, path string, limit int) ([]byte, error) {
	return ledger.ReadPartial(path, func(path string) ([]byte, error) { return c.get(ctx, path, limit) })
}

func (c *Client) get(ctx context.Context, path string, limit int) ([]byte, error) {
	at := c.base + "/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("read log: %s: %w", at, fs.ErrNotExist)
	default:
		return nil, fmt.Errorf("read log: %s answers with status %d", at, resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read log: %s: %w", at, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("read log: %s is over the limit of %d bytes", at, limit)
	}
	return data, nil
}
