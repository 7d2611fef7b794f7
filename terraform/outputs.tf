# What one needs to know afterwards.

output "mlflow_url" {
  description = "MLflow has no login of its own: the rule for one address is what guards it."
  value       = "http://${aws_eip.node.public_ip}:5000"
}

output "grafana_url" {
  description = "The user is admin; the password stands in .env on the node."
  value       = "http://${aws_eip.node.public_ip}:3000"
}

output "prometheus_url" {
  description = "Prometheus."
  value       = "http://${aws_eip.node.public_ip}:9090"
}

output "api_url" {
  description = "The API; it wants a key."
  value       = "http://${aws_eip.node.public_ip}:8000"
}

output "ssh_command" {
  description = "The way into the node."
  value       = var.ssh_public_key == null ? "aws ssm start-session --region ${var.region} --target ${aws_instance.core.id}" : "ssh ubuntu@${aws_eip.node.public_ip}"
}

output "bucket" {
  description = "The bucket, as platform.objects has to say it."
  value       = "s3://${aws_s3_bucket.data.bucket}"
}

output "repository_urls" {
  description = "Where infra/ecr_push.sh pushes the two images."
  value       = { for name, repository in aws_ecr_repository.images : name => repository.repository_url }
}

output "role_arns" {
  description = "What the node, the function, and SageMaker work as."
  value = {
    node      = aws_iam_role.node.arn
    lambda    = aws_iam_role.lambda.arn
    sagemaker = aws_iam_role.sagemaker.arn
  }
}

output "stream" {
  description = "The stream of transactions, as streaming.source has to say it."
  value       = "kinesis://${aws_kinesis_stream.transactions.name}"
}

output "topic" {
  description = "The topic of alerts, as monitoring.alerting.sinks has to say it."
  value       = "sns://${aws_sns_topic.alerts.arn}"
}

output "queue" {
  description = "The queue that retraining listens to, as monitoring.alerting.inbox has to say it."
  value       = "sqs://${aws_sqs_queue.inbox.name}"
}

output "secrets" {
  description = "Secrets to be filled: aws secretsmanager put-secret-value --secret-id NAME --secret-string VALUE"
  value       = keys(aws_secretsmanager_secret.this)
}

output "github_role_arn" {
  description = "For the repository variable AWS_ROLE_ARN; null without a repository."
  value       = one(aws_iam_role.github[*].arn)
}
