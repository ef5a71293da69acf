# A Node application with lictor in its own container.
FROM lictor AS lictor

FROM node:18-alpine
COPY --from=lictor /lictor /lictor
COPY server.js /server.js
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=3s --start-period=35s CMD ["/lictor", "health"]
ENTRYPOINT ["/lictor", "run", "--"]
CMD ["node", "/server.js"]
