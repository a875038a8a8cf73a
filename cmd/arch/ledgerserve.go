package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/tilehttp"
)

func newLedgerServeCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var listen string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Publish a ledger's directory over HTTP, to be read only",
		Long: `Serve publishes the checkpoint, tiles and entries of a ledger (C2SP tlog-tiles), so that whoever speaks that can read it. It opens nothing else.
Decisions are public to whoever reaches the address.

EXIT STATUS: 0 stopped; 1 error; 2 usage.`,
		Example: "  arch ledger serve --ledger /var/lib/arch/ledger --listen 127.0.0.1:7341",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			source, err := f.open()
			if err != nil {
				return err
			}
			if _, ok := source.(ledger.Dir); !ok {
				return usage("--ledger: only a directory can be served")
			}
			return a.serve(c.Context(), listen, tilehttp.NewServer(source), "the ledger is published")
		},
	}
	c.Flags().StringVar(&f.ledger, "ledger", "", "directory of the ledger (default $ARCH_LEDGER)")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:7341", "address to listen at")
	return c
}

// listening tells where something is served.
type listening struct {
	URL string `json:"url"`
}

func (listening) kind() string { return "Listening" }

// serve answers HTTP until ctx ends, and says where.
func (a *app) serve(ctx context.Context, listen string, h http.Handler, what string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return hinted(usage("--listen: %w", err), "an address is HOST:PORT, such as 127.0.0.1:7341, that is free here")
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	if err := a.print(listening{"http://" + l.Addr().String()}, func(w *screen) {
		fmt.Fprintf(w, "%s at http://%s\n", what, l.Addr())
	}); err != nil {
		l.Close()
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		s.Shutdown(end)
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
