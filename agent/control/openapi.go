package control

import (
	_ "embed"
	"net/http"

	"arch.network/agent/control/wire"
)

//go:embed openapi.json
var openAPIDocument []byte

// OpenAPI returns the description of the API (OpenAPI 3.1).
func OpenAPI() []byte { return openAPIDocument }

func (s *Server) openAPI(w http.ResponseWriter, r *http.Request, _ caller) error {
	return answerBytes(w, r, wire.MediaJSON, openAPIDocument)
}
