;; What Guix writes of a profile that it pulled from one channel.
(manifest
 (version 4)
 (packages
  (("guix" "0123456" "out" "/gnu/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-guix"
    (propagated-inputs ()) (search-paths ())
    (properties
     ((source
      (repository
       (version 0)
       (url "https://git.guix.gnu.org/guix.git")
       (branch "master")
       (commit "0123456789012345678901234567890123456789")))))))))
